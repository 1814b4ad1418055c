"""Evaluation: predictions and truth become tables, curves and pictures, each with its definition.

A run folder is evaluated by `run.evaluate_run`, masks of any origin by `masks.evaluate_masks`, several
evaluations are compared by `compare.compare`. Nothing is imported here: masks need no torch.
"""
