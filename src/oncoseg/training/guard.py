"""Ends a training, in all its processes, at a step that came to NaN or infinity: no checkpoint is spoilt."""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from oncoseg.recipe import Recipe
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import Cases
from oncoseg.training import checkpoints
from oncoseg.training.divergence import (
    Seen,
    Watch,
    WatchedStep,
    bad_weights,
    error_of,
    is_finite,
    report_of,
)
from oncoseg.training.ranks import Ranks

ENDED = "the loss or the weights became NaN or infinite"
"""Why, for the record."""


class Guard:
    """Looks at the figures of every step, and at the weights before they are kept."""

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        cases: Cases,
        network: nn.Module,
        ranks: Ranks,
        ended: Callable[[str], object],
    ) -> None:
        """Take what a report tells of; `ended` is told why the training is over."""
        self._run, self._recipe, self._cases = run, recipe, cases
        self._network, self._ranks, self._ended = network, ranks, ended
        self._watch = Watch()

    def add(self, step: WatchedStep, losses: Sequence[tuple[str, Tensor]], gradient_norm: Tensor) -> None:
        """Take the figures of a step, whose weights are not changed yet, and look at those that are there.

        Raises:
            RunError: a step was not finite; in other processes than the first an `ElsewhereError`.
        """
        self._watch.add(step, losses, gradient_norm)
        self._stop_if(self._watch.first_bad())

    def check(self) -> None:
        """Look at all figures and at the weights; all processes must ask.

        Raises:
            RunError: some are not finite; in other processes than the first an `ElsewhereError`.
        """
        seen = self._watch.first_bad(wait=True)
        self._stop_if(seen if seen is not None or is_finite(self._network) else self._watch.latest)

    def _stop_if(self, seen: Seen | None) -> None:
        (found,) = self._ranks.most(int(seen is not None))
        if found:
            # on GPUs another process may have noticed it sooner
            known = cast(Seen, seen or self._watch.first_bad(wait=True) or self._watch.latest)
            bad = self._ranks.gathered([bad_weights(self._network)], self._ranks.count)
            self._ranks.from_first(lambda: self._report(known, sorted(set().union(*bad))))

    def _report(self, seen: Seen, weights: Sequence[str]) -> None:
        """Write `nan.json` about a step.

        Raises:
            RunError: always.
        """
        given = self._cases, self._network, weights, self._recipe.training, self._ranks.precision
        report = report_of(seen, *given)
        self._run.write_divergence(report)
        self._ended(ENDED)
        raise error_of(report, self._run.path, checkpoints.exists(self._run.checkpoint))
