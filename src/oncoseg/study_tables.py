"""The tables of a study as files; where its networks are trained several times, of their mean and of each."""

import csv
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oncoseg.evaluate import contest_files
from oncoseg.evaluate.compare import Contest
from oncoseg.evaluate.overlap_table import MEANINGS, OverlapRow
from oncoseg.files import atomic_file, atomic_folder
from oncoseg.statistics import Summary
from oncoseg.studies.study import PRINTED_COSTS, PRINTED_SCORES, Study
from oncoseg.study_folder import StudyFolder
from oncoseg.study_results import Network, StudyResults

TABLE_1, TABLE_2, TESTS = "table1.csv", "table2.csv", "tests.csv"
"""What `write_results` writes."""

MEAN = "mean"
"""Stands for the seed in the rows of several trainings together."""

OTHER_DATA, SAME_DATA = "other data", "the same data"
"""How published figures are marked."""


def write_results(found: StudyResults, out: Path) -> None:
    """Write the tables and the tests of each group, in place of earlier ones."""
    _write_csv(out / TABLE_1, (row for one in found.networks for row in _table_1(found.study, one)))
    _write_csv(out / TABLE_2, (row for one in found.networks for row in _table_2(found.study, one)))
    tests = [row for group, contest in found.contests.items() for row in _tests(group, contest)]
    (out / TESTS).unlink(missing_ok=True)
    if tests:
        _write_csv(out / TESTS, tests)
    for group, contest in found.contests.items():
        place = StudyFolder(out).comparison(group)
        shutil.rmtree(place, ignore_errors=True)
        with atomic_folder(place) as unfinished:
            contest_files.write(contest, unfinished)


def _table_1(study: Study, network: Network) -> Iterable[dict[str, Any]]:
    """Of one training its rows; of several those of their mean, and then of each."""
    yield from _overlap_rows(study, network, network.overlap, _of_which(study, len(network.trainings)))
    for one in network.trainings if study.several else ():
        yield from _overlap_rows(study, network, one.overlap, _of_which(study, 1, one.run.seed))


def _of_which(study: Study, trainings: int, seed: int | str | None = MEAN) -> dict[str, Any]:
    """The columns that say which training a row is of, where there are several."""
    return {"seed": seed, "trainings": trainings} if study.several else {}


def _overlap_rows(
    study: Study, network: Network, overlap: Sequence[OverlapRow], which: Mapping[str, Any]
) -> Iterable[dict[str, Any]]:
    for row in overlap:
        yield {
            "group": network.group,
            "variant": network.variant,
            **which,
            "modality": row.modality,
            "class": row.label,
            "averaging": row.averaging,
            "n": row.scores["dice"].n,
            "undefined": row.scores["dice"].undefined,
            **{
                f"{name}{end}": value
                for name in MEANINGS
                for end, value in (_with_ends(row.scores[name]) | _seed_sd(study, row, name)).items()
            },
            **_published(study, network, PRINTED_SCORES),
            "synthetic": network.trainings[0].summary["synthetic"],
        }


def _seed_sd(study: Study, row: OverlapRow, name: str) -> dict[str, float | None]:
    found = row.variation.get(name)
    return {"_seed_sd": found.seed_sd if found else None} if study.several else {}


def _with_ends(summary: Summary) -> dict[str, float | None]:
    return {"": summary.mean, "_low": summary.low, "_high": summary.high}


def _table_2(study: Study, network: Network) -> Iterable[dict[str, Any]]:
    """Of one training its row; of several their means with the range, and then each."""
    several = [network._replace(trainings=[one]) for one in network.trainings] if study.several else []
    yield _cost_row(study, network, _of_which(study, len(network.trainings)))
    for one in several:
        yield _cost_row(study, one, _of_which(study, 1, one.trainings[0].run.seed))


def _cost_row(study: Study, network: Network, which: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "group": network.group,
        "variant": network.variant,
        **which,
        **_measured(study, network),
        "test_cases": network.cost.cases,
        "parameters": network.cost.parameters,
        "multiply_adds": network.cost.multiply_adds,
        "hardware": "; ".join(dict.fromkeys(one.cost.hardware for one in network.trainings)),
        **_published(study, network, PRINTED_COSTS),
    }


def _measured(study: Study, network: Network) -> dict[str, float]:
    """What differs between trainings, with its range where there are several."""
    cells: dict[str, float] = {}
    for column, cost in (
        ("epochs", "epochs"),
        ("training_minutes", "minutes"),
        ("inference_seconds", "seconds"),
    ):
        mean, least, most = network.spread(cost)
        cells |= {column: mean} | ({f"{column}_min": least, f"{column}_max": most} if study.several else {})
    return cells


def _published(study: Study, network: Network, names: Sequence[str]) -> dict[str, Any]:
    """The paper's figures in columns of their own, and whether they are of the same data."""
    rows = study.published.rows if study.published else ()
    used = [name for name in names if any(name in row.scores for row in rows)]
    there = any(name in network.printed for name in used)
    return {
        **{f"published_{name}": network.printed.get(name) for name in used},
        "published_on": mark(study) if there else None,
    }


def mark(study: Study) -> str:
    """How the study's published figures are marked."""
    return SAME_DATA if study.published and study.published.same_data else OTHER_DATA


def _tests(group: str, contest: Contest) -> Iterable[dict[str, Any]]:
    for part in contest.parts:
        for each in part.comparisons:
            yield {
                "group": group,
                "modality": part.group,
                "class": part.label,
                "metric": part.metric,
                "a": each.a,
                "b": each.b,
                "n": each.n,
                "difference": each.difference.mean,
                "low": each.difference.low,
                "high": each.difference.high,
                "p": each.p,
                "p_holm": each.p_adjusted,
                "family": each.family,
                "better": each.better,
                "in_words": each.sentence,
            }


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """What is undefined is empty."""
    listed = list(rows)
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(listed[0]))
        writer.writeheader()
        writer.writerows(
            {name: "" if _undefined(cell) else cell for name, cell in row.items()} for row in listed
        )


def _undefined(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))
