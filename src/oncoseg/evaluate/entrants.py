"""The evaluations of a comparison, as their files tell them, and whether they may be compared at all."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.errors import DataError
from oncoseg.evaluate import long_table
from oncoseg.evaluate.long_table import Row
from oncoseg.evaluate.scoring import FORFEITED
from oncoseg.evaluate.truths import Part, Scored, check_same_truths, read_scored

Key = tuple[str, str, str]
"""Group, class and metric."""


class Entrant(NamedTuple):
    """One evaluation.

    Attributes:
        name: what messages call it by.
        summary: summary.json.
        values: key → patient → value; NaN where undefined.
        forfeited: metric → patients for whom it lacks a file that no value is bad enough for.
        cases: group and class → case → whose it is and what its truth is.
        rules: key → rule → patients whose value it decided.
    """

    name: str
    summary: Mapping[str, Any]
    values: dict[Key, dict[str, float]]
    forfeited: dict[str, list[str]]
    cases: dict[Part, dict[str, Scored]]
    rules: dict[Key, Counter[str]]


def read_entrants(folders: Mapping[str, Path | Sequence[Path]]) -> dict[str, list[Entrant]]:
    """Read every system's evaluations, one per training.

    Args:
        folders: system → evaluation folder, or several.

    Raises:
        DataError: a folder that is no evaluation or is named twice, or evaluations with other settings.
    """
    seen: dict[Path, str] = {}
    entrants: dict[str, list[Entrant]] = {}
    for system, given in folders.items():
        several = [given] if isinstance(given, Path) else list(given)
        for folder in several:
            name = system if len(several) == 1 else f"{system} ({folder})"
            if (place := folder.resolve()) in seen:
                raise DataError(
                    f"{seen[place]} and {name} are the same folder, {folder}; expected different ones."
                )
            seen[place] = name
            entrants.setdefault(system, []).append(_read(name, folder))
    _check_alike(list(chain.from_iterable(entrants.values())))
    return _in_one_group(entrants)


def check_not_forfeited(entrants: Sequence[Entrant], metrics: Sequence[str]) -> None:
    """Check that nobody would gain by having withheld a file.

    Raises:
        DataError: somebody would; names the first patient.
    """
    for entrant in entrants:
        for metric in metrics:
            if lost := entrant.forfeited.get(metric):
                raise DataError(
                    f"{entrant.name} cannot be compared by {metric}: it has no usable prediction of "
                    f"{len(lost)} patients, the first is {lost[0]!r}, and no value is bad enough for what "
                    "they may hold. Leave the metric out, or evaluate all systems with a value for it, as in "
                    f"--outcome {metric}.prediction_missing=100."
                )


def remarks_on(entrants: Sequence[Entrant], parts: Sequence[Part], metrics: Sequence[str]) -> list[str]:
    """What a reader has to know of the evaluations.

    Args:
        entrants: all evaluations.
        parts: groups and classes that are compared.
        metrics: that were asked for.

    Raises:
        DataError: they were made against different truths, or on different cases of one patient.
    """
    remarks = [
        f"{entrant.name} was scored on the {split} side of its split: the figures are too good for new "
        "patients."
        for entrant in entrants
        if (split := entrant.summary.get("split")) in ("train", "validation")
    ]
    remarks += _left_out(entrants, parts, metrics)
    if untold := check_same_truths({entrant.name: entrant.cases for entrant in entrants}, parts):
        remarks.append(
            f"The files of {', '.join(untold)} are of an early version and do not say which truth was used, "
            "so that it was not checked that it is the same one. Evaluate again to have it checked."
        )
    return remarks


def copies(systems: Mapping[str, Sequence[Entrant]]) -> list[str]:
    """Remarks on systems two of whose trainings have the same values throughout."""
    return [
        f"Trainings of {system} are identical: the same predictions under several names. They say nothing of "
        "how results vary between trainings."
        for system, several in systems.items()
        if any(_alike(a, b) for a, b in combinations(several, 2))
    ]


def _alike(a: Entrant, b: Entrant) -> bool:
    return a.values.keys() == b.values.keys() and all(
        a.values[key].keys() == b.values[key].keys()
        and all(
            x == b.values[key][patient] or (x != x and b.values[key][patient] != b.values[key][patient])
            for patient, x in a.values[key].items()
        )
        for key in a.values
    )


def _read(name: str, folder: Path) -> Entrant:
    path = folder / "summary.json"
    try:
        summary = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder} is no evaluation ({_why(error)}); expected a folder that `oncoseg evaluate` has "
            "written, or a run folder that was evaluated."
        ) from error
    rows = long_table.read(folder)
    values: dict[Key, dict[str, float]] = {}
    forfeited: dict[str, dict[str, None]] = {}
    rules: dict[Key, Counter[str]] = {}
    for row in rows:
        if row.rule:
            rules.setdefault(_key(row), Counter())[row.rule] += 1
        values.setdefault(_key(row), {})[row.patient] = row.value
        if row.rule == FORFEITED:
            forfeited.setdefault(row.metric, {})[row.patient] = None
    lost = {metric: list(patients) for metric, patients in forfeited.items()}
    return Entrant(name, summary, values, lost, read_scored(folder), rules)


def _why(error: Exception) -> str:
    return "it has no summary.json" if isinstance(error, OSError) else "its summary.json is damaged"


def _key(row: Row) -> Key:
    return row.group, row.label, row.metric


def _check_alike(entrants: Sequence[Entrant]) -> None:
    first, *others = entrants
    for other in others:
        ours, theirs = (dict(entrant.summary.get("scoring") or {}) for entrant in (first, other))
        different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if different:
            words = "; ".join(f"{name} {ours.get(name)} and {theirs.get(name)}" for name in different)
            raise DataError(
                f"{first.name} and {other.name} were evaluated with different scoring ({words}). Evaluate "
                "both in the same way."
            )


def _in_one_group(entrants: dict[str, list[Entrant]]) -> dict[str, list[Entrant]]:
    """Masks have no modality: where all else is of one, so are they."""
    groups = [{key[0] for key in entrant.values} for entrant in chain.from_iterable(entrants.values())]
    named = set().union(*groups) - {""}
    if len(named) != 1 or any(len(of) != 1 for of in groups):
        return entrants
    (group,) = named
    return {
        system: [
            entrant._replace(
                values={(group, *key[1:]): of for key, of in entrant.values.items()},
                cases={(group, part[1]): of for part, of in entrant.cases.items()},
                rules={(group, *key[1:]): of for key, of in entrant.rules.items()},
            )
            for entrant in several
        ]
        for system, several in entrants.items()
    }


def _left_out(entrants: Sequence[Entrant], parts: Sequence[Part], metrics: Sequence[str]) -> list[str]:
    """Which classes and metrics are not compared, as some evaluation lacks them."""
    wanted = dict.fromkeys(
        (key[:2], key[2]) for entrant in entrants for key in entrant.values if key[2] in metrics
    )
    remarks: dict[str, str] = {}
    for part, metric in wanted:
        lacking = [entrant.name for entrant in entrants if (*part, metric) not in entrant.values]
        what = metric if part in parts else " ".join(filter(None, part))
        if lacking:
            remarks.setdefault(what, f"{what} is not compared, since {', '.join(lacking)} lacks it.")
    return list(remarks.values())
