"""One network, or several as one, computed on batches of images: probabilities, averaged."""

from collections.abc import Sequence
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from oncoseg import hardware
from oncoseg.errors import RunError
from oncoseg.logits import probabilities

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Memory layout in which inference is fastest, by the number of spatial axes."""


class Ensemble:
    """Networks whose probabilities are averaged, each counting the same.

    Args:
        networks: one or more; they are moved to the device.
        device: where they compute.
        precision: see `hardware.choose_precision`.
        spatial_dims: 2 for slices `n c h w`, 3 for windows `n c i j k`.
        flips: average over all mirror images, too: four of a slice, eight of a window.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        device: torch.device,
        precision: str,
        *,
        spatial_dims: int = 2,
        flips: bool = False,
    ) -> None:
        self.device, self._precision, self._layout = device, precision, LAYOUTS[spatial_dims]
        self.networks = [hardware.in_layout(one.to(device), self._layout).eval() for one in networks]
        self._mirrors = mirrors(spatial_dims) if flips else [()]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities `n classes …` (float32, on the device) of prepared images `n c …`.

        Raises:
            RunError: the output is not finite.
        """
        images = images.to(self.device)
        total = torch.zeros((), device=self.device)
        for axes in self._mirrors:
            flipped = images.flip(axes).contiguous(memory_format=self._layout)
            for network in self.networks:
                with hardware.computing_in(self._precision, self.device):
                    logits = network(flipped)
                if not logits.isfinite().all():
                    raise RunError(
                        "The network's output is NaN or infinite for a usual image; expected finite numbers. "
                        "Its weights are damaged or their training has diverged: copy the run again, or "
                        "train again."
                    )
                total = total + probabilities(logits).flip(axes)
        return total / (len(self._mirrors) * len(self.networks))


def mirrors(spatial_dims: int) -> list[tuple[int, ...]]:
    """The axes that each mirror image of a batch is flipped along; the first is the image itself."""
    axes = range(-1, -spatial_dims - 1, -1)
    return list(chain.from_iterable(combinations(axes, count) for count in range(spatial_dims + 1)))
