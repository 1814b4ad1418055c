"""Several evaluations of the same patients against each other: differences, tests and rankings."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from oncoseg.comparisons import (
    Comparison,
    RankStability,
    SeedVariation,
    as_family,
    between_trainings,
    compare_systems,
    mean_of_trainings,
    rank_stability,
)
from oncoseg.comparisons.rank_stability import without_stability
from oncoseg.comparisons.systems import ALPHA
from oncoseg.errors import DataError, nearest
from oncoseg.evaluate.contest_rules import Touched, handed_in, policy_sentence, touched_by_rules
from oncoseg.evaluate.entrants import Entrant, Key, check_not_forfeited, copies, read_entrants, remarks_on
from oncoseg.evaluate.false_alarms import FALSE_ALARM, FalseAlarms, false_alarms
from oncoseg.evaluate.scoring import ALL_CLASSES
from oncoseg.metrics.catalogue import METRICS
from oncoseg.statistics import Summary, common_patients, rough_sentence, summarise, summarise_shares

TESTED = ("dice", "surface_dice", "hd95_max_mm", "lesion_f1", "false_alarm")
"""Metrics that are compared unless others are named: overlap, boundary, distance, lesions; and false alarms,
which alone have a value for every patient, those without tumour included. Every further one makes the
correction for many tests harsher."""


NOT_ADJUSTED = (
    "Intervals of differences are each for one comparison and not adjusted for many; p-values are, by Holm's "
    "method."
)
"""What a reader of many comparisons has to know."""


class Part(NamedTuple):
    """One metric of one class: what systems are compared by.

    Attributes:
        group: the modality, or empty.
        label: the class.
        metric: a name in METRICS.
        values: system → patient → value; of several trainings, their mean.
        summaries: system → mean and median with intervals, over the patients that all systems have.
        comparisons: every pair of systems, or every system with the reference.
        ranking: of the systems and how stable it is.
        variation: system → how its score varies between its trainings, where it has several.
        touched: system → rule for empty or missing masks → patients whose value it decided.
    """

    group: str
    label: str
    metric: str
    values: dict[str, dict[str, float]]
    summaries: dict[str, Summary]
    comparisons: list[Comparison]
    ranking: RankStability
    variation: dict[str, SeedVariation]
    touched: Touched


class Contest(NamedTuple):
    """Several systems, compared.

    Attributes:
        systems: their names.
        parts: one per group, class and metric.
        synthetic: whether any of them was scored on phantoms.
        remarks: what the reader of the results has to know besides.
        false_alarms: one per group and class of which some patients have none.
        policy: how empty and missing masks were scored.
    """

    systems: list[str]
    parts: list[Part]
    synthetic: bool
    remarks: list[str]
    false_alarms: list[FalseAlarms]
    policy: str

    @property
    def cautions(self) -> list[str]:
        """How surely its intervals may be read."""
        differences = [each.difference for part in self.parts for each in part.comparisons]
        summaries = [found for part in self.parts for found in part.summaries.values()]
        rough = rough_sentence(one.n for one in (*summaries, *differences) if one.low is not None)
        return [said for said in (rough, NOT_ADJUSTED, self.policy) if said]


def compare(
    folders: Mapping[str, Path | Sequence[Path]],
    *,
    metrics: Sequence[str] = TESTED,
    reference: str | None = None,
    common_only: bool = False,
    seed: int = 0,
) -> Contest:
    """Compare evaluations patient by patient; all tests together are one family under Holm's correction.

    Several classes of a run are compared each alone, and not all of them together.

    Args:
        folders: system → evaluation folder, as `oncoseg evaluate` writes it; several folders are trainings
            of one system with other seeds, whose mean is compared.
        metrics: names in METRICS; one that some system lacks is left out.
        reference: the system that every other one is compared with; None for every pair.
        common_only: compare two systems on the patients that both have, and rank them all on those that all
            have, rather than refuse.
        seed: of bootstrap and permutations.

    Raises:
        DataError: a folder that is no evaluation, or is named twice; an unknown metric or reference;
            evaluations with other settings, against other truths or, without `common_only`, of other
            patients; or nothing that all have.
    """
    _check_names(folders, metrics, reference)
    systems = read_entrants(folders)
    everyone = list(chain.from_iterable(systems.values()))
    check_not_forfeited(everyone, metrics)
    keys = [key for key in everyone[0].values if all(key in entrant.values for entrant in everyone)]
    shared = _without_union([key for key in keys if key[2] in metrics])
    if not shared:
        raise DataError(_nothing_shared(everyone, metrics))
    classes = list(dict.fromkeys(key[:2] for key in shared))
    remarks = remarks_on(everyone, classes, metrics) + copies(systems) + handed_in(everyone)
    parts = [
        _part(key, _table(systems, key), reference, common_only, seed)._replace(
            touched=touched_by_rules(systems, key)
        )
        for key in shared
    ]
    family = iter(as_family([one for part in parts for one in part.comparisons]))
    parts = [_judged(part, [next(family) for _ in part.comparisons]) for part in parts]
    found = [_alarms(systems, each) for each in classes if (*each, FALSE_ALARM) in keys]
    synthetic = any(entrant.summary.get("synthetic", False) for entrant in everyone)
    policy = policy_sentence(everyone[0].summary["scoring"]) if everyone[0].summary.get("scoring") else ""
    return Contest(list(folders), parts, synthetic, remarks, [each for each in found if each], policy)


def _without_union(keys: Sequence[Key]) -> list[Key]:
    """Without several classes together, which repeat the largest class and would cost the others power."""
    return [key for key in keys if key[1] != ALL_CLASSES] or list(keys)


def _check_names(folders: Mapping[str, object], metrics: Sequence[str], reference: str | None) -> None:
    if len(folders) < 2:
        raise DataError(f"Expected two or more evaluations to compare, got {len(folders)}.")
    for metric in metrics:
        if metric not in METRICS:
            raise DataError(f"Unknown metric {metric!r}; {nearest(metric, METRICS)}")
        if METRICS[metric].better == "zero":
            raise DataError(
                f"{metric} has a sign, so that neither more nor less of it is better; compare volume_error."
            )
    if reference is not None and reference not in folders:
        raise DataError(f"Unknown reference {reference!r}; {nearest(reference, folders)}")


def _nothing_shared(entrants: Sequence[Entrant], metrics: Sequence[str]) -> str:
    has = []
    for entrant in entrants:
        classes = dict.fromkeys(" ".join(filter(None, key[:2])) for key in entrant.values)
        has.append(f"{entrant.name} has {', '.join(classes)}")
    return (
        f"The evaluations share none of the metrics {', '.join(metrics)} of any class ({'; '.join(has)}); "
        "expected some to compare. Evaluate all with the same --class, or name other metrics with --metric."
    )


def _table(systems: Mapping[str, Sequence[Entrant]], key: Key) -> dict[str, list[dict[str, float]]]:
    """System → training → patient → value."""
    return {system: [entrant.values[key] for entrant in several] for system, several in systems.items()}


def _alarms(systems: Mapping[str, Sequence[Entrant]], part: tuple[str, str]) -> FalseAlarms | None:
    table = _table(systems, (*part, FALSE_ALARM))
    cases = next(iter(systems.values()))[0].cases.get(part, {})
    return false_alarms(
        part, cases, {name: mean_of_trainings(name, several) for name, several in table.items()}
    )


def _part(
    key: tuple[str, str, str],
    trainings: Mapping[str, Sequence[Mapping[str, float]]],
    reference: str | None,
    common_only: bool,
    seed: int,
) -> Part:
    metric = METRICS[key[2]]
    higher = metric.better == "higher"
    values = {system: mean_of_trainings(system, several) for system, several in trainings.items()}
    try:
        comparisons = compare_systems(
            values, reference=reference, higher_is_better=higher, common_only=common_only, seed=seed
        )
        ranking = rank_stability(values, higher_is_better=higher, common_only=common_only, seed=seed)
    except ValueError as error:
        raise DataError(
            f"{error} Evaluate all systems on the same patients, or compare them on those that they share "
            "(--common-only)."
        ) from error
    common, _ = common_patients(values, common_only)
    summary = summarise_shares if metric.yes_or_no else summarise
    summaries = {system: summary([of[patient] for patient in common], seed) for system, of in values.items()}
    variation = {
        system: between_trainings(several, seed) for system, several in trainings.items() if len(several) > 1
    }
    comparisons = [each._replace(unit=metric.unit) for each in comparisons]
    return Part(*key, values, summaries, comparisons, ranking, variation, {})


def _judged(part: Part, comparisons: list[Comparison]) -> Part:
    """With its comparisons, and without shares of first places where no test could show any difference."""
    if any(each.p_smallest <= ALPHA for each in comparisons):
        return part._replace(comparisons=comparisons)
    return part._replace(comparisons=comparisons, ranking=without_stability(part.ranking))
