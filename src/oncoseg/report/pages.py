"""HTML pages from templates, with one style and nothing to load."""

from datetime import date
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import oncoseg
from oncoseg.report import words


def render(template: str, **contents: Any) -> str:
    """Fill a template of this package."""
    environment = Environment(
        loader=PackageLoader("oncoseg", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "measured": words.measured,
        "score": words.score,
        "interval": words.interval,
        "group": words.group_name,
        "volume": words.volume,
        "number": words.number,
    }
    style = files("oncoseg.report").joinpath("style.css").read_text("utf-8")
    return environment.get_template(template).render(
        words=words,
        style=Markup(style),
        today=date.today().isoformat(),
        version=oncoseg.__version__,
        **contents,
    )
