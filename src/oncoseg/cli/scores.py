"""An evaluation's table on the terminal, with what its figures mean."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncoseg.cli import terminal
from oncoseg.errors import SHOWN_FAILURES
from oncoseg.files import SYNTHETIC_SENTENCE

if TYPE_CHECKING:
    from oncoseg.evaluate.compare import Contest

FORFEITED = "forfeited"
"""The rule of a metric without a mean; see oncoseg.evaluate.scoring.FORFEITED."""

NOTES = {
    "unlisted": ("case", "not in the list of patients and therefore taken for a patient each"),
    "without_truth": ("prediction", "without a truth, left out"),
}
"""Lists in a summary → what is said of them."""

PUBLISHED = "paper, other data"
"""What stands in place of an averaging over published figures."""

UNITS = {
    "n": "patients, slices, or 1 when pooled, whose Dice is averaged; another n stands below its score.",
    "empty": "no tumour in truth and prediction.",
    "zero": "tumour in only one of the two, so that Dice is 0.",
}
"""Rows that count units, with their meaning."""


def print_scores(folder: Path) -> None:
    """Print the tables of an evaluation folder with its definitions, averagings and empty-mask rule.

    There is one for each modality (and each of several classes), with the averagings beside each other, so
    that it fits into 80 columns; the published figures are its last column, marked as of other data.

    Args:
        folder: what `evaluate_run` wrote.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    mirrors = "on" if summary["prediction"].get("flips") else "off"
    used = f"threshold {summary['threshold']:g}, mirror averaging {mirrors}"
    if (folds := summary["prediction"].get("folds")) is not None:
        by = f"each patient by the one of {folds} folds that has not seen them"
        terminal.say(f"Scores out of fold, {by} ({used})")
    else:
        terminal.say(f"Scores on the {summary['split']} set ({used})")
    tables, papers, beside_none = _tables(summary)
    for title in dict.fromkeys([*tables, *papers]):
        _print_group(title, tables.get(title, []), papers.get(title))
    for remark in summary.get("remarks", ()):
        terminal.note(remark)
    if summary["synthetic"]:
        terminal.say(SYNTHETIC_SENTENCE)
    scores = [score for row in summary["table"] for score in row["scores"].values()]
    terminal.say(_intervals(scores, summary["confidence"]))
    for name, meaning in UNITS.items():
        terminal.say(f"  {name}: {meaning}")
    for name, meaning in (summary["definitions"] | summary["averagings"]).items():
        terminal.say(f"  {_in_words(name)}: {meaning}")
    if any("class" in row for row in summary["table"]):
        terminal.say(f"  classes: {_of_classes()}")
    for row in beside_none:
        printed = ", ".join(f"{name} {value:.2f}" for name, value in row["scores"].items())
        terminal.say(f"  {PUBLISHED} of {row['row']} {row['of_class']}: {printed}")
    if summary["published"]:
        terminal.say(f"  {PUBLISHED}: as printed, averaged in its own way; not directly comparable.")
    terminal.say(f"  Empty masks: {summary['empty_rule']}")


def _tables(summary: Mapping[str, Any]) -> tuple[dict[str, list[Any]], dict[str, Any], list[Any]]:
    """Title → rows of a modality (and class), the paper's figures beside them, and those beside none."""
    from oncoseg.evaluate.summary_tables import class_of_published, title_of

    tables: dict[str, list[Any]] = {}
    for row in summary["table"]:
        tables.setdefault(title_of(row["group"], row.get("class")), []).append(row)
    several = any("class" in row for row in summary["table"])
    papers, beside_none = {}, []
    for row in summary["published"]:
        title = title_of(row["row"], class_of_published(row) if several else None)
        if row.get("of_class") and (not several or title not in tables):
            beside_none.append(row)
        else:
            papers[title] = row["scores"]
    return tables, papers, beside_none


def _of_classes() -> str:
    from oncoseg.evaluate.summary_tables import OF_CLASSES

    return OF_CLASSES


def _print_group(
    group: str, averagings: Sequence[Mapping[str, Any]], paper: Mapping[str, float] | None
) -> None:
    """One modality (and class): a row for each score, a column for each averaging, and the paper's."""
    names = list(averagings[0]["scores"]) if averagings else list(paper or {})
    rows: list[list[Any]] = [[unit, *(_units(row)[unit] for row in averagings)] for unit in UNITS]
    rows = rows if averagings else []
    for name in names:
        scores = [row["scores"][name] for row in averagings]
        rows.append([name, *(_with_interval(one["mean"], one["low"], one["high"]) for one in scores)])
        counts = [one["n"] for one in scores]
        if counts != [row["scores"]["dice"]["n"] for row in averagings]:
            rows.append([f"{name}: n", *counts])
    columns = [group, *(_in_words(row["averaging"]) for row in averagings)]
    if paper is not None:
        columns.append(PUBLISHED)
        for row in rows:
            row.append(f"{paper[row[0]]:.2f}" if row[0] in paper else None)
    terminal.print_table(None, columns, rows, right=2, unbroken=len(columns))


def print_mask_scores(summary: Mapping[str, Any]) -> None:
    """Print what `evaluate_masks` found: mean and median of every class and metric, and its rules."""
    narrow = terminal.is_narrow()
    terminal.say(f"Scores of {counted(summary['patients'], 'patient')}")
    parts: dict[str, list[Sequence[Any]]] = {}
    for row in summary["table"]:
        title = " ".join(filter(None, (row["group"], row["class"])))
        parts.setdefault(title, []).append(_mask_row(row, narrow))
    for title, rows in parts.items():
        columns = ("metric", "mean over patients", "median", "n", "by rule")
        terminal.print_table(title, columns, rows, unbroken=len(columns))
    if summary["synthetic"]:
        terminal.say(SYNTHETIC_SENTENCE)
    terminal.say(_intervals(summary["table"], summary["confidence"]))
    terminal.say(
        "By rule: patients whose value was decided by a rule for empty or missing masks"
        + ("; cases.csv says by which." if narrow else ".")
    )
    terminal.say(
        f"Empty and missing masks: policy {summary['scoring']['policy']}; summary.json has every metric's "
        "definition and what it is worth in each situation."
    )
    if any(FORFEITED in row["rules"] for row in summary["table"]):
        terminal.say(
            f"  {FORFEITED}: no mean, as files are missing and no value is bad enough for what they may hold."
        )
    for kind, words in NOTES.items():
        if found := summary.get(kind):
            noun, what = words
            terminal.note(f"{counted(len(found), noun)} {what}, the first is {found[0]}")


def _mask_row(row: Mapping[str, Any], narrow: bool) -> Sequence[Any]:
    """One metric of one class; in a narrow terminal without the median's interval and the rules' names."""
    low, high = (None, None) if narrow else (row["median_low"], row["median_high"])
    rules = ", ".join(f"{rule} {count}" for rule, count in row["rules"].items())
    return (
        row["metric"],
        _with_interval(row["mean"], row["low"], row["high"]),
        _with_interval(row["median"], low, high),
        row["n"],
        sum(row["rules"].values()) if narrow else rules,
    )


def _in_words(name: str) -> str:
    """A name that may be broken into lines."""
    return name.replace("-", " ")


def _intervals(scores: Sequence[Mapping[str, Any]], confidence: float) -> str:
    from oncoseg.statistics import rough_sentence

    numbers = [score["n"] for score in scores if score["low"] is not None]
    if numbers:
        return " ".join(
            filter(None, [f"In brackets: {confidence:.0%} interval over patients.", rough_sentence(numbers)])
        )
    return "No intervals: there are too few patients, or all have the same value."


def faults(summary: Mapping[str, Any]) -> str:
    """What there is to mend in the predictions of an evaluation of masks; empty where all were used."""
    failures, maps, missing = (summary[name] for name in ("failures", "map_failures", "missing"))
    parts = []
    if failures:
        title = f"{counted(len(failures), 'prediction')} could not be used and must count as missing:"
        parts.append(_listed(title, [f"{case}: {why}" for case, why in failures.items()]))
    if missing:
        title = f"{counted(len(missing), 'case')} without a prediction, which must count as missing:"
        known = {_plain(name): name for name in summary["without_truth"]}
        parts.append(_listed(title, [case + _renamed(case, known) for case in missing]))
    if maps:
        title = (
            f"{counted(len(maps), 'probability map')} could not be used and must count as missing, but the "
            "masks beside do not:"
        )
        parts.append(_listed(title, [f"{case}: {why}" for case, why in maps.items()]))
    return "\n".join(parts)


def left_out(unusable: Mapping[str, str]) -> str:
    """The cases without which an agreement of readers had to do, each with the reason."""
    title = f"{counted(len(unusable), 'case')} could not be used and had to be left out:"
    return _listed(title, [f"{case}: {why}" for case, why in sorted(unusable.items())])


def _listed(title: str, lines: Sequence[str]) -> str:
    more = len(lines) - SHOWN_FAILURES
    rest = [f"and {more} more; all are in summary.json"] if more > 0 else []
    return "\n  ".join([title, *lines[:SHOWN_FAILURES], *rest])


def _plain(name: str) -> str:
    """A name without what is often written in two ways."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _renamed(case: str, known: Mapping[str, str]) -> str:
    """The prediction without a truth that is named most alike, if any is."""
    near = difflib.get_close_matches(_plain(case), known, n=1)
    return (
        f" (the nearest name without a truth is {known[near[0]]}; rename it if it is this case)"
        if near
        else ""
    )


def counted(number: int, noun: str) -> str:
    """As in `1 case`, `2 cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _units(row: Mapping[str, Any]) -> dict[str, int]:
    """The averaging's UNITS."""
    counts = row["scores"]["dice"]["n"], row["both_empty"], row["truth_empty"] + row["prediction_empty"]
    return dict(zip(UNITS, counts, strict=True))


def print_contest(contest: "Contest") -> None:
    """Print means of every system, and what each comparison shows."""
    for part in contest.parts:
        places = {place.system: place for place in part.ranking.systems}
        rows = [
            (
                system,
                _with_interval(found.mean, found.low, found.high),
                found.n,
                f"{places[system].rank:g}",
                _share(places[system].first_share),
            )
            for system, found in part.summaries.items()
        ]
        title = " ".join(filter(None, (part.group, part.label, part.metric)))
        columns = ("system", "mean over patients", "n", "rank", "first in")
        terminal.print_table(title, columns, rows, unbroken=len(columns))
        for each in part.comparisons:
            terminal.say(f"  {each.sentence}")
        for system, variation in part.variation.items():
            terminal.say(f"  {system}: {variation.sentence}")
        terminal.say("")
    if contest.synthetic:
        terminal.say(SYNTHETIC_SENTENCE)
    for remark in (*contest.remarks, *(each.sentence for each in contest.false_alarms)):
        terminal.say(remark)
    terminal.say(
        "In brackets: 95 % interval over patients. First in: share of bootstrap samples of the patients in "
        "which the system is first."
    )
    for sentence in contest.cautions:
        terminal.say(sentence)


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"
