"""An evaluation's summary as tables for papers: summary.md and summary.tex beside summary.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oncoseg.evaluate.paper_tables import latex_table, markdown_table, with_interval
from oncoseg.evaluate.scoring import ALL_CLASSES
from oncoseg.files import SYNTHETIC_SENTENCE, write_text
from oncoseg.statistics import rough_sentence

OF_CLASSES = (
    "Each class is scored alone: where these definitions say tumour, the class of the row is meant. "
    f"“{ALL_CLASSES.capitalize()}”, last, counts a voxel of any class as found where any class is "
    "marked, so that it says nothing of a class that is small beside another."
)
"""Said where there are several classes."""


class PaperTable(NamedTuple):
    """Headings, cells as text, and the sentences without which the figures mean little."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def write_tables(folder: Path, table: PaperTable) -> None:
    """Write FOLDER/summary.md and FOLDER/summary.tex."""
    notes = "".join(f"- {note}\n" for note in table.notes)
    write_text(folder / "summary.md", f"{markdown_table(table.columns, table.rows)}\n{notes}")
    write_text(folder / "summary.tex", latex_table(table.columns, table.rows, table.notes))


def of_masks(summary: Mapping[str, Any]) -> PaperTable:
    """One row per class and metric.

    Args:
        summary: as `evaluate_masks` writes it.
    """
    scoring = summary["scoring"]
    rows = [
        [
            " ".join(filter(None, (row["group"], row["class"]))),
            row["metric"],
            with_interval(row["mean"], row["low"], row["high"]),
            with_interval(row["median"], row["median_low"], row["median_high"]),
            str(row["n"]),
            str(row["undefined"]),
            ", ".join(f"{rule} {count}" for rule, count in row["rules"].items()) or "–",
        ]
        for row in summary["table"]
    ]
    changed = "".join(f", {name} = {value}" for name, value in scoring["outcomes"].items())
    notes = [
        f"{summary['patients']} patients; {_missing(summary)}. In brackets: {summary['confidence']:.0%} "
        f"interval over patients ({interval_kinds(summary['table'])}); n: patients with a value; by rule: "
        "patients whose value was decided by a rule for empty or missing masks, or who have none for it.",
        *_rough(row for row in summary["table"]),
        *summary.get("remarks", []),
        f"Empty and missing masks: policy {scoring['policy']}{changed}. Surface Dice at "
        f"{scoring['tolerance_mm']:g} mm; lesions with {scoring['connectivity']} neighbours, from "
        f"{scoring['min_lesion_mm3']:g} mm³; BraTS rules: {scoring['challenge']}.",
    ]
    return _marked(summary, ["class", "metric", "mean", "median", "n", "undefined", "by rule"], rows, notes)


def of_run(summary: Mapping[str, Any]) -> PaperTable:
    """One row per modality and averaging, then the paper's; of several classes each with its own rows.

    Args:
        summary: as `evaluate_run` writes it.
    """
    names = list(summary["definitions"])
    blocks: dict[str, list[list[str]]] = {}
    for row in summary["table"]:
        usual_n = row["scores"]["dice"]["n"]
        scores = [_score(row["scores"][name], usual_n) for name in names]
        title = title_of(row["group"], row.get("class"))
        blocks.setdefault(title, []).append([title, row["averaging"], str(usual_n), *scores])
    several = any("class" in row for row in summary["table"])
    for row in summary["published"]:
        title = title_of(row["row"], class_of_published(row) if several else row.get("of_class"))
        scores = [_printed(row["scores"].get(name)) for name in names]
        # below the run's own rows of the class; where there is one class, below all
        place = title if several else ""
        blocks.setdefault(place, []).append([title, "paper, other data", "–", *scores])
    rows = [row for block in blocks.values() for row in block]
    mirrors = "on" if summary["prediction"].get("flips") else "off"
    side = "" if summary["split"] is None else f"{summary['split']} side, "
    if (folds := summary["prediction"].get("folds")) is not None:
        side = f"Out of fold: each patient by the one of {folds} folds that has not seen them; "
    notes = [
        f"{side}threshold {summary['threshold']:g}, mirror averaging {mirrors}. In brackets: "
        f"{summary['confidence']:.0%} bootstrap interval over patients; n: units with a Dice.",
        *_rough(score for row in summary["table"] for score in row["scores"].values()),
        f"Empty masks: {summary['empty_rule']}",
        *(f"{name}: {meaning}" for name, meaning in summary["averagings"].items()),
        *([OF_CLASSES] if several else []),
    ]
    first = "modality, class" if several else "modality"
    return _marked(summary, [first, "averaging", "n", *names], rows, notes)


def title_of(group: str, label: str | None) -> str:
    """A modality, and the class where there are several: `ct, liver`."""
    return ", ".join(filter(None, (group, label)))


def class_of_published(row: Mapping[str, Any]) -> str:
    """The class beside which a paper's row stands, where there are several."""
    return str(row.get("of_class") or ALL_CLASSES)


def interval_kinds(rows: Iterable[Mapping[str, Any]]) -> str:
    """How the intervals of means were made; Wilson's only where each patient is yes or no.

    Args:
        rows: of the table, with their notes.
    """
    by_wilson = dict.fromkeys(row["metric"] for row in rows if row["note"].startswith("Wilson"))
    return "; ".join(["BCa bootstrap", *(f"of the mean of {name} Wilson's" for name in by_wilson)])


def _missing(summary: Mapping[str, Any]) -> str:
    if summary.get("readers"):
        return f"{summary['cases']} cases with several readers, {len(summary['left_out'])} unusable"
    missing, unusable = len(summary.get("missing", [])), len(summary["failures"])
    maps = len(summary.get("map_failures", []))
    of_maps = f", of those that are left {maps} with an unusable probability map" if maps else ""
    return f"{missing} of {summary['cases']} predictions missing, {unusable} unusable{of_maps}"


def _rough(scores: Iterable[Mapping[str, Any]]) -> list[str]:
    said = rough_sentence(score["n"] for score in scores if score["low"] is not None)
    return [said] if said else []


def _marked(
    summary: Mapping[str, Any], columns: list[str], rows: list[list[str]], notes: Sequence[str]
) -> PaperTable:
    return PaperTable(columns, rows, [SYNTHETIC_SENTENCE, *notes] if summary["synthetic"] else [*notes])


def _score(score: Mapping[str, Any], usual_n: int) -> str:
    text = with_interval(score["mean"], score["low"], score["high"])
    return text if score["n"] in (usual_n, 0) else f"{text} (n={score['n']})"


def _printed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
