"""Evaluation: predictions and truth become tables, curves and pictures, each with its definition.

`evaluate_predictions` takes predictions of any origin; `evaluate_run` takes a run folder.
"""

from oncoseg.evaluate.result import Evaluation, evaluate_predictions
from oncoseg.evaluate.run import evaluate_run

__all__ = ["Evaluation", "evaluate_predictions", "evaluate_run"]
