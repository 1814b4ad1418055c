"""What `oncoseg compare` writes: every value, every comparison, and tables for papers."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from oncoseg.comparisons import Comparison
from oncoseg.evaluate.compare import Contest, Part
from oncoseg.evaluate.contest_rules import touched_sentence
from oncoseg.evaluate.paper_tables import in_cell, latex_table, markdown_table
from oncoseg.files import SYNTHETIC_SENTENCE, atomic_file, new_folder, without_nan, write_json, write_text
from oncoseg.metrics.catalogue import METRICS

MEANING = "Mean over patients with its 95 % interval, and the number of patients."
"""Stands below the table."""

OF_COMPARISONS = (
    *("group", "class", "metric", "a", "b", "n", "left_out", "difference", "low", "high"),
    *("p", "p_adjusted", "family", "p_wilcoxon", "p_wilcoxon_adjusted"),
    *("cohen_d", "rank_biserial", "share_a_better", "better"),
)
"""Columns of comparisons.csv; `difference` is the mean of a − b, with its interval."""


def write(contest: Contest, out: Path) -> Path:
    """Write comparison.json, comparisons.csv, values.csv, summary.md and summary.tex into a new folder."""
    new_folder(out, "The comparison folder")
    values = (
        (system, part.group, patient, part.label, part.metric, value)
        for part in contest.parts
        for system, of in part.values.items()
        for patient, value in of.items()
    )
    _write_csv(out / "values.csv", ("system", "group", "patient", "class", "metric", "value"), values)
    comparisons = (_cells(part, each) for part in contest.parts for each in part.comparisons)
    _write_csv(out / "comparisons.csv", OF_COMPARISONS, comparisons)
    write_text(out / "summary.md", markdown(contest))
    write_text(out / "summary.tex", latex(contest))
    write_json(out / "comparison.json", as_json(contest))
    return out


def heading(part: Part) -> str:
    """What a part is about, in words."""
    return " ".join(filter(None, (part.group, part.label, part.metric)))


def short_heading(contest: Contest, part: Part) -> str:
    """The metric, with the modality and the class where the contest has several."""
    groups, labels = ({getattr(each, name) for each in contest.parts} for name in ("group", "label"))
    several = part.group if len(groups) > 1 else "", part.label if len(labels) > 1 else ""
    return " ".join(filter(None, (*several, part.metric)))


def markdown(contest: Contest) -> str:
    """Means with intervals, one row per system and one column per part; then every sentence."""
    start = f"**{SYNTHETIC_SENTENCE}**\n\n" if contest.synthetic else ""
    sentences = [
        *contest.remarks,
        *contest.cautions,
        *filter(None, (touched_sentence(heading(part), part.touched) for part in contest.parts)),
        *(f"{heading(part)}: {each.sentence}" for part in contest.parts for each in part.comparisons),
        *(each.sentence for each in contest.false_alarms),
        *(
            f"{heading(part)}, {system}: {found.sentence}"
            for part in contest.parts
            for system, found in part.variation.items()
        ),
    ]
    lines = "".join(f"- {sentence}\n" for sentence in sentences)
    return f"{start}{markdown_table(*_table(contest))}\n{MEANING}\n\n{lines}"


def latex(contest: Contest) -> str:
    """The same table as a LaTeX tabular."""
    notes = [SYNTHETIC_SENTENCE] if contest.synthetic else []
    return latex_table(*_table(contest), notes=[*notes, *contest.remarks, MEANING, *contest.cautions])


def as_json(contest: Contest) -> dict[str, Any]:
    """Everything but the single values, as JSON can hold it."""
    return dict(
        without_nan(
            {
                "systems": contest.systems,
                "synthetic": contest.synthetic,
                "remarks": contest.remarks,
                "cautions": contest.cautions,
                "false_alarms": [each._asdict() for each in contest.false_alarms],
                "parts": [_part_as_json(part) for part in contest.parts],
            }
        )
    )


def _part_as_json(part: Part) -> dict[str, Any]:
    return {
        "group": part.group,
        "class": part.label,
        "metric": part.metric,
        "definition": METRICS[part.metric].definition,
        "touched": part.touched,
        "summaries": {system: found._asdict() for system, found in part.summaries.items()},
        "comparisons": [
            each._asdict() | {"difference": each.difference._asdict(), "sentence": each.sentence}
            for each in part.comparisons
        ],
        "variation": {
            system: found._asdict() | {"sentence": found.sentence} for system, found in part.variation.items()
        },
        "ranking": part.ranking._asdict() | {"systems": [place._asdict() for place in part.ranking.systems]},
    }


def _table(contest: Contest) -> tuple[list[str], list[list[str]]]:
    """Columns and rows."""
    rows = [
        [system, *(in_cell(part.summaries[system]) for part in contest.parts)] for system in contest.systems
    ]
    return ["system", *map(heading, contest.parts)], rows


def _cells(part: Part, each: Comparison) -> tuple[Any, ...]:
    mean, low, high = each.difference.mean, each.difference.low, each.difference.high
    return (
        *(part.group, part.label, part.metric, each.a, each.b, each.n, each.left_out, mean, low, high),
        *(each.p, each.p_adjusted, each.family, each.p_wilcoxon, each.p_wilcoxon_adjusted),
        *(each.cohen_d, each.rank_biserial, each.share_a_better, each.better),
    )


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """What is undefined is empty."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow("" if _undefined(cell) else cell for cell in row)


def _undefined(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))
