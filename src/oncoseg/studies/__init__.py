"""Studies: several networks on the same data, each a function that returns its complete `Study`."""

import json
from collections.abc import Callable
from pathlib import Path

from oncoseg.errors import RecipeError, nearest
from oncoseg.files import read_json
from oncoseg.studies.aspp_attention import aspp_attention
from oncoseg.studies.study import Study

STUDIES: dict[str, Callable[[], Study]] = {"aspp-attention": aspp_attention}
"""Name → study. A new one is one file beside this one and a line here."""


def open_study(name: str) -> Study:
    """A study by its name, or one from a JSON file.

    Raises:
        RecipeError: neither a known name nor a readable study.
    """
    path = Path(name)
    if path.suffix != ".json":
        if name not in STUDIES:
            hint = nearest(name, STUDIES, "see `oncoseg studies` for those there are.")
            raise RecipeError(f"Unknown study {name!r}; {hint}")
        return STUDIES[name]()
    if not path.is_file():
        raise RecipeError(f"The study file {path} does not exist; give a study's JSON file or its name.")
    try:
        return Study.from_json(json.dumps(read_json(path)))
    except (OSError, ValueError) as error:
        raise RecipeError(f"Expected a study as JSON in {path}, but {error}.") from error
