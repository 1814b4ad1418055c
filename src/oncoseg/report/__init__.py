"""The report: one self-contained HTML page about a run, for clinicians and researchers."""

import json
from datetime import date
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import oncoseg
from oncoseg.files import write_bytes, write_text
from oncoseg.report import figures, words
from oncoseg.report.contents import Contents, read_run

__all__ = ["write_report"]


def write_report(run: Path) -> Path:
    """Write RUN/report/index.html, and examples.png beside it, a figure for slides.

    What the run does not have yet (an evaluation, finished training) is left out, and the page says
    which command makes it.

    Returns:
        The page's path. It needs no other file and no network.

    Raises:
        RunError: not a run folder, damaged, or it cannot be written.
    """
    contents = read_run(run)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": words.score,
        "interval": words.interval,
        "group": words.group_name,
        "volume": words.volume,
        "number": words.number,
    }
    template = environment.from_string(files(__name__).joinpath("report.html.jinja").read_text("utf-8"))
    page = template.render(
        **vars(contents),
        words=words,
        pictures=_pictures(contents),
        recipe_json=json.dumps(json.loads(contents.recipe.to_json()), indent=2, ensure_ascii=False),
        today=date.today().isoformat(),
        version=oncoseg.__version__,
    )
    path = run / "report" / "index.html"
    write_text(path, page)
    if contents.evaluation is not None and contents.evaluation.panels:
        write_bytes(path.with_name("examples.png"), figures.examples(contents.evaluation.panels))
    return path


def _pictures(contents: Contents) -> dict[str, object]:
    """Everything drawn, as data URIs."""
    pictures: dict[str, object] = {
        "learning": figures.learning_curves(contents.log, contents.recipe.modalities)
    }
    evaluation = contents.evaluation
    if evaluation is not None:
        pictures |= {
            "curves": figures.operating_curves(evaluation.curves),
            "strip": figures.strip_plot(evaluation.patients, evaluation.rows),
            "panels": [figures.panel_tiles(panel) for panel in evaluation.panels],
        }
    return pictures
