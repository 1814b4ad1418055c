"""Several evaluations of the same patients against each other: tables, tests and rankings."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oncoseg.comparisons import (
    Comparison,
    RankStability,
    SeedVariation,
    across_seeds,
    as_family,
    compare_systems,
    rank_stability,
)
from oncoseg.errors import DataError, nearest
from oncoseg.evaluate import long_table
from oncoseg.evaluate.long_table import Row
from oncoseg.files import SYNTHETIC_SENTENCE, atomic_file, new_folder, without_nan, write_json, write_text
from oncoseg.metrics.catalogue import METRICS
from oncoseg.statistics import Summary, summarise

TESTED = ("dice", "surface_dice", "hd95_max_mm", "lesion_f1")
"""Metrics that are compared unless others are named: overlap, boundary, distance, lesions. Every further
one makes the correction for many tests harsher."""


class Part(NamedTuple):
    """One metric of one class: what systems are compared by.

    Attributes:
        group: the modality, or empty.
        label: the class.
        metric: a name in METRICS.
        values: system → patient → value; of several trainings, their mean.
        summaries: system → mean and median with intervals.
        comparisons: every pair of systems, or every system with the reference.
        ranking: of the systems and how stable it is.
        variation: system → how its score varies between its trainings, where it has several.
    """

    group: str
    label: str
    metric: str
    values: dict[str, dict[str, float]]
    summaries: dict[str, Summary]
    comparisons: list[Comparison]
    ranking: RankStability
    variation: dict[str, SeedVariation]


class Contest(NamedTuple):
    """Several systems, compared.

    Attributes:
        systems: their names.
        parts: one per group, class and metric.
        synthetic: whether any of them was scored on phantoms.
    """

    systems: list[str]
    parts: list[Part]
    synthetic: bool


def compare(
    folders: Mapping[str, Path | Sequence[Path]],
    *,
    metrics: Sequence[str] = TESTED,
    reference: str | None = None,
    common_only: bool = False,
    seed: int = 0,
) -> Contest:
    """Compare evaluations patient by patient; all tests together are one family under Holm's correction.

    Args:
        folders: system → evaluation folder, as `oncoseg evaluate` writes it; several folders are trainings
            of one system with other seeds, whose mean is compared.
        metrics: names in METRICS; one that some system lacks is left out.
        reference: the system that every other one is compared with; None for every pair.
        common_only: compare on the patients that both systems have, rather than refuse.
        seed: of bootstrap and permutations.

    Raises:
        DataError: a folder that is no evaluation, an unknown metric or reference, evaluations with other
            settings or, without `common_only`, of other patients; or nothing that all have.
    """
    _check_names(folders, metrics, reference)
    trainings = {
        system: [given] if isinstance(given, Path) else list(given) for system, given in folders.items()
    }
    every = [folder for several in trainings.values() for folder in several]
    summaries = {str(folder): _summary(folder) for folder in every}
    _check_alike(summaries)
    tables = {
        system: [_values(long_table.read(folder)) for folder in several]
        for system, several in trainings.items()
    }
    each = [table for several in tables.values() for table in several]
    shared = [key for key in each[0] if key[2] in metrics and all(key in table for table in each)]
    parts = [
        _part(
            key,
            {system: [table[key] for table in several] for system, several in tables.items()},
            reference,
            common_only,
            seed,
        )
        for key in shared
    ]
    if not parts:
        raise DataError(
            f"The evaluations share none of the metrics {', '.join(metrics)} of any class; expected some to "
            "compare. Name others with --metric."
        )
    family = iter(as_family([one for part in parts for one in part.comparisons]))
    parts = [part._replace(comparisons=[next(family) for _ in part.comparisons]) for part in parts]
    return Contest(list(folders), parts, any(found.get("synthetic", False) for found in summaries.values()))


def write(contest: Contest, out: Path) -> Path:
    """Write comparison.json, comparisons.csv, values.csv, summary.md and summary.tex into a new folder."""
    new_folder(out, "The comparison folder")
    with atomic_file(out / "values.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("system", "group", "patient", "class", "metric", "value"))
        for part in contest.parts:
            for system, values in part.values.items():
                for patient, value in values.items():
                    shown = "" if math.isnan(value) else value
                    writer.writerow((system, part.group, patient, part.label, part.metric, shown))
    write_text(out / "summary.md", markdown(contest))
    write_text(out / "summary.tex", latex(contest))
    write_json(out / "comparison.json", as_json(contest))
    return out


def as_json(contest: Contest) -> dict[str, Any]:
    """Everything but the single values, as JSON can hold it."""
    found: dict[str, Any] = without_nan(
        {
            "systems": contest.systems,
            "synthetic": contest.synthetic,
            "parts": [
                {
                    "group": part.group,
                    "class": part.label,
                    "metric": part.metric,
                    "definition": METRICS[part.metric].definition,
                    "summaries": {system: found._asdict() for system, found in part.summaries.items()},
                    "comparisons": [
                        each._asdict() | {"difference": each.difference._asdict(), "sentence": each.sentence}
                        for each in part.comparisons
                    ],
                    "variation": {
                        system: found._asdict() | {"sentence": found.sentence}
                        for system, found in part.variation.items()
                    },
                    "ranking": part.ranking._asdict()
                    | {"systems": [place._asdict() for place in part.ranking.systems]},
                }
                for part in contest.parts
            ],
        }
    )
    return found


def heading(part: Part) -> str:
    """What a part is about, in words."""
    return " ".join(filter(None, (part.group, part.label, part.metric)))


def markdown(contest: Contest) -> str:
    """Means with intervals, one row per system and one column per part; then every comparison's sentence."""
    columns = [heading(part) for part in contest.parts]
    lines = [f"**{SYNTHETIC_SENTENCE}**", ""] if contest.synthetic else []
    lines += [f"| system | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    for system in contest.systems:
        cells = [words(part.summaries[system]) for part in contest.parts]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    lines += ["", "Mean over patients with its 95 % interval, and the number of patients.", ""]
    for part in contest.parts:
        lines += [f"- {heading(part)}: {each.sentence}" for each in part.comparisons]
        lines += [f"- {heading(part)}, {name}: {found.sentence}" for name, found in part.variation.items()]
    return "\n".join(lines) + "\n"


def latex(contest: Contest) -> str:
    """The same table as a LaTeX tabular."""
    columns = " & ".join(_escaped(heading(part)) for part in contest.parts)
    lines = [f"% {SYNTHETIC_SENTENCE}"] if contest.synthetic else []
    lines += [
        f"\\begin{{tabular}}{{l{'r' * len(contest.parts)}}}",
        "\\hline",
        f"system & {columns} \\\\",
        "\\hline",
    ]
    for system in contest.systems:
        cells = " & ".join(words(part.summaries[system]) for part in contest.parts)
        lines.append(f"{_escaped(system)} & {cells} \\\\")
    return "\n".join([*lines, "\\hline", "\\end{tabular}"]) + "\n"


def words(summary: Summary) -> str:
    """Mean, interval and number of patients."""
    if math.isnan(summary.mean):
        return "not defined"
    interval = "" if summary.low is None else f" [{summary.low:.2f}, {summary.high:.2f}]"
    return f"{summary.mean:.3f}{interval} (n={summary.n})"


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


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder} is no evaluation ({type(error).__name__}: {path.name}); expected a folder that "
            "`oncoseg evaluate` has written, or a run folder that was evaluated."
        ) from error


def _check_alike(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    (first, known), *others = summaries.items()
    for system, summary in others:
        if summary.get("scoring") != known.get("scoring"):
            raise DataError(
                f"{first} and {system} were evaluated with different scoring: {known.get('scoring')} and "
                f"{summary.get('scoring')}. Evaluate both in the same way."
            )


def _values(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, float]]:
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        found.setdefault((row.group, row.label, row.metric), {})[row.patient] = row.value
    return found


def _part(
    key: tuple[str, str, str],
    trainings: Mapping[str, Sequence[Mapping[str, float]]],
    reference: str | None,
    common_only: bool,
    seed: int,
) -> Part:
    higher = METRICS[key[2]].better == "higher"
    values = {system: _mean_of(several) for system, several in trainings.items()}
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
    summaries = {system: summarise(list(of.values()), seed) for system, of in values.items()}
    variation = {
        system: across_seeds(np.array([[of[patient] for of in several] for patient in values[system]]), seed)
        for system, several in trainings.items()
        if len(several) > 1
    }
    return Part(*key, values, summaries, comparisons, ranking, variation)


def _mean_of(trainings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Patient → mean over trainings; undefined where it is in any of them.

    Raises:
        DataError: trainings of different patients.
    """
    if any(of.keys() != trainings[0].keys() for of in trainings):
        raise DataError(
            "The trainings of one system were evaluated on different patients; expected the same."
        )
    return {patient: math.fsum(of[patient] for of in trainings) / len(trainings) for patient in trainings[0]}


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "_%&#$" else letter for letter in text)
