"""oncoseg finds tumours in MRI and CT: from raw files to a trained model, an evaluation and a report.

The names below are imported when first used, so that `import oncoseg` stays fast. Two steps share
their name with their module and are imported from it: `from oncoseg.prepare import prepare` and
`from oncoseg.train import train`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oncoseg.datasets import DATASETS, open_dataset
    from oncoseg.datasets.base import Case
    from oncoseg.errors import OncosegError
    from oncoseg.evaluate.run import evaluate_run
    from oncoseg.inspect import inspect_dataset
    from oncoseg.io import ImageRef, read, read_channels, write_labels, write_scalars
    from oncoseg.losses import LOSSES
    from oncoseg.models import MODELS
    from oncoseg.phantom import PHANTOMS
    from oncoseg.predict import Predictor
    from oncoseg.recipe import Recipe
    from oncoseg.recipes import RECIPES, get_recipe
    from oncoseg.report import write_report
    from oncoseg.volume import Volume

__version__ = "0.1.0"

__all__ = [
    "DATASETS",
    "LOSSES",
    "MODELS",
    "PHANTOMS",
    "RECIPES",
    "Case",
    "ImageRef",
    "OncosegError",
    "Predictor",
    "Recipe",
    "Volume",
    "evaluate_run",
    "get_recipe",
    "inspect_dataset",
    "open_dataset",
    "read",
    "read_channels",
    "write_labels",
    "write_report",
    "write_scalars",
]

_HOMES = {
    "DATASETS": "oncoseg.datasets",
    "LOSSES": "oncoseg.losses",
    "MODELS": "oncoseg.models",
    "PHANTOMS": "oncoseg.phantom",
    "RECIPES": "oncoseg.recipes",
    "Case": "oncoseg.datasets.base",
    "ImageRef": "oncoseg.io",
    "OncosegError": "oncoseg.errors",
    "Predictor": "oncoseg.predict",
    "Recipe": "oncoseg.recipe",
    "Volume": "oncoseg.volume",
    "evaluate_run": "oncoseg.evaluate.run",
    "get_recipe": "oncoseg.recipes",
    "inspect_dataset": "oncoseg.inspect",
    "open_dataset": "oncoseg.datasets",
    "read": "oncoseg.io",
    "read_channels": "oncoseg.io",
    "write_labels": "oncoseg.io",
    "write_report": "oncoseg.report",
    "write_scalars": "oncoseg.io",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
