"""From the scores of cases to an evaluation's files: tables, summary, curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oncoseg import statistics
from oncoseg.evaluate import curves, long_table
from oncoseg.evaluate.scoring import FORFEITED, CaseScores, Scoring, as_json
from oncoseg.evaluate.summary_tables import PaperTable, write_tables
from oncoseg.files import without_nan, write_json
from oncoseg.metrics.catalogue import METRICS, SITUATIONS, outcome


def summarise(patients: Sequence[CaseScores], scoring: Scoring) -> dict[str, Any]:
    """Mean and median over patients with intervals, of every class and metric, and the rules' counts."""
    table = []
    for (group, label), rows in by_class(patients).items():
        for name in rows[0].values:
            touched = [row.rules.get(name, "") for row in rows]
            table.append(
                {
                    "group": group,
                    "class": label,
                    "metric": name,
                    **_summary_of(name, [row.values[name] for row in rows], touched)._asdict(),
                    "rules": {rule: touched.count(rule) for rule in dict.fromkeys(touched) if rule},
                }
            )
    names = [name for name in METRICS if any(row["metric"] == name for row in table)]
    return {
        "patients": len({row.patient for row in patients}),
        "scoring": as_json(scoring),
        "policy": {
            name: {s: outcome(name, s, scoring.policy, scoring.outcomes) for s in SITUATIONS}
            for name in names
        },
        "definitions": {name: METRICS[name].definition for name in names},
        "confidence": statistics.CONFIDENCE,
        "table": without_nan(table),
    }


def _summary_of(metric: str, values: Sequence[float], rules: Sequence[str]) -> statistics.Summary:
    if FORFEITED in rules:
        lost = rules.count(FORFEITED)
        why = f"no mean: {lost} patient{' lacks' if lost == 1 else 's lack'} a file"
        undefined = sum(map(math.isnan, values)) - lost
        return statistics.plain_summary([], why)._replace(undefined=undefined)
    return (statistics.summarise_shares if METRICS[metric].yes_or_no else statistics.summarise)(values)


def by_class(rows: Sequence[CaseScores]) -> dict[tuple[str, str], list[CaseScores]]:
    """(Group, class) → its rows, in the order of arrival."""
    parts: dict[tuple[str, str], list[CaseScores]] = {}
    for row in rows:
        parts.setdefault((row.group, row.label), []).append(row)
    return parts


def write(
    folder: Path,
    cases: Sequence[CaseScores],
    patients: Sequence[CaseScores],
    parts: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    for_papers: PaperTable,
) -> None:
    """Write the tables of cases and patients, the curves (see `describe`), a paper's table, summary.json."""
    long_table.write(folder, long_table.CASES, long_table.rows_of(cases))
    long_table.write(folder, long_table.PATIENTS, long_table.rows_of(patients))
    long_table.write_counts(folder, cases)
    curves.write(folder, cases, parts)
    write_tables(folder, for_papers)
    write_json(folder / "summary.json", summary)


def describe(patients: Sequence[CaseScores], scoring: Scoring, seed: int = 0) -> list[dict[str, Any]]:
    """The curves of every group and class; see `curves.describe`."""
    return [curves.describe(rows, scoring, group, seed) for (group, _), rows in by_class(patients).items()]
