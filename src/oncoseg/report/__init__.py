"""The report: one self-contained HTML page about a run, for clinicians and researchers."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from oncoseg.datasets.folders import safe_id
from oncoseg.evaluate.panels import Panel
from oncoseg.evaluate.summary_tables import OF_CLASSES
from oncoseg.files import write_text
from oncoseg.metrics.catalogue import SITUATIONS
from oncoseg.recipe import ALL_MODALITIES
from oncoseg.report import curves, examples, operating, pages
from oncoseg.report.comparison import write_comparison
from oncoseg.report.contents import Contents, read_run
from oncoseg.report.curves import Curve
from oncoseg.report.evaluation import write_evaluation
from oncoseg.report.figures import write_figures
from oncoseg.report.parts import plots_of
from oncoseg.report.study import write_study
from oncoseg.statistics import SMALLEST_SAMPLE

__all__ = ["FIGURE_SUFFIXES", "write_comparison", "write_evaluation", "write_report", "write_study"]

FIGURE_SUFFIXES = (".png", ".svg")
"""Ends of the names of the figures beside the page."""


def write_report(run: Path, evaluation: Path | None = None) -> Path:
    """Write RUN/report/index.html, and beside it its figures as files of their own, for slides.

    These are the learning curves (`learning-MODALITY-loss.svg` and `-dice.svg`, with scans without a mask
    also `learning-consistency.svg`), of several modalities
    together `roc.svg` and `precision-recall.svg` (of several classes `roc-all-CLASS.svg` and so on),
    `patients.svg` (the Dice of every patient),
    `examples.png`, and the plots of each modality and class (see `report.parts`). What the
    run does not have yet (an evaluation, finished training) is left out, and the page says which
    command makes it.

    Args:
        run: the run folder.
        evaluation: a folder that `evaluate_run` wrote elsewhere, to show in place of the run's own; the
            report is then EVALUATION/report/index.html.

    Returns:
        The page's path. It needs no other file and no network.

    Raises:
        RunError: not a run folder, damaged, or it cannot be written.
    """
    contents = read_run(run, evaluation)
    panels = contents.evaluation.panels if contents.evaluation else []
    plots = _plots(contents)
    path = (evaluation or run) / "report" / "index.html"
    write_text(path, _page(contents, plots, panels))
    parts = contents.evaluation.parts if contents.evaluation else []
    pictures = examples.overview(panels, contents.synthetic) if panels else None
    write_figures(path.parent, chain(*plots.values(), plots_of(parts)), pictures)
    return path


def _plots(contents: Contents) -> dict[str, list[Curve]]:
    """The curves by the part of the page that shows them."""
    plots = {"learning": curves.learning_curves(contents.log, contents.recipe.modalities)}
    evaluation = contents.evaluation
    if evaluation is not None:
        plots |= {
            "operating": _operating(evaluation.curves),
            "patients": [
                curves.strip_plot(
                    evaluation.patients,
                    {
                        (rows.group, rows.label): rows.of["patient"]["scores"]["dice"]
                        for rows in evaluation.rows
                        if rows.group != ALL_MODALITIES
                    },
                )
            ],
        }
    return plots


def _operating(of_classes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Curve]:
    """The modalities in one plot (the paper's Fig. 4), where there are several; class by class."""
    plots = []
    for label, parts in of_classes.items():
        if len(parts) > 1:
            named = len(of_classes) > 1
            end = f"-all-{safe_id(label)}" if named else ""
            titled = {f"{title}, {label}" if named else title: part for title, part in parts.items()}
            plots += [
                operating.roc(f"roc{end}", titled),
                operating.precision_recall(f"precision-recall{end}", titled),
            ]
    return [plot for plot in plots if plot is not None]


def _page(contents: Contents, plots: Mapping[str, Sequence[Curve]], panels: Sequence[Panel]) -> str:
    return pages.render(
        "report.html.jinja",
        **vars(contents),
        plots=plots,
        situations=SITUATIONS,
        smallest_sample=SMALLEST_SAMPLE,
        examples=[examples.example(panel) for panel in panels],
        keys=examples.keys(panel.view for panel in panels),
        about_classes=OF_CLASSES,
        recipe_json=json.dumps(json.loads(contents.recipe.to_json()), indent=2, ensure_ascii=False),
    )
