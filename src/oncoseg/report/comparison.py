"""The page of a comparison: who is better by what, how surely, patient by patient."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from oncoseg.evaluate import contest_rules
from oncoseg.evaluate.compare import Contest, Part
from oncoseg.evaluate.contest_files import heading
from oncoseg.files import write_text
from oncoseg.metrics.catalogue import METRICS
from oncoseg.report import curves, pages, words
from oncoseg.report.figures import write_figures


def write_comparison(contest: Contest, folder: Path) -> Path:
    """Write FOLDER/index.html and, beside it, its plots as SVG files.

    Returns:
        The page's path. It needs no other file and no network.
    """
    plots = [_plot(part, contest.systems) for part in contest.parts]
    write_figures(folder, plots)
    path = folder / "index.html"
    parts = [
        {
            "part": part,
            "title": heading(part),
            "metric": METRICS[part.metric],
            "plot": plot,
            "rows": _rows(part),
        }
        for part, plot in zip(contest.parts, plots, strict=True)
    ]
    write_text(
        path,
        pages.render(
            "comparison.html.jinja",
            systems=contest.systems,
            synthetic=contest.synthetic,
            remarks=contest.remarks,
            cautions=contest.cautions,
            false_alarms=contest.false_alarms,
            parts=parts,
        ),
    )
    return path


def _plot(part: Part, systems: Sequence[str]) -> curves.Curve:
    values = {system: list(part.values[system].values()) for system in systems}
    summaries: Mapping[str, Mapping[str, float | None]] = {
        system: part.summaries[system]._asdict() for system in systems
    }
    name = "-".join(filter(None, ("patients", part.group, part.label, part.metric)))
    title = f"{words.axis_title(part.metric)} of a patient"
    return curves.system_strips(name, title, values, summaries, share=METRICS[part.metric].better == "higher")


def _rows(part: Part) -> list[dict[str, object]]:
    """The systems from first to last."""
    return [
        {
            "place": place,
            "summary": part.summaries[place.system]._asdict(),
            "rules": contest_rules.in_words(part.touched[place.system]),
        }
        for place in part.ranking.systems
    ]
