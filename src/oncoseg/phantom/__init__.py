"""Synthetic studies, each in a public data set's own layout, for machines without any data.

Scores on them are never results about patients.
"""

from pathlib import Path
from typing import Protocol

from oncoseg.phantom.brain_mri import make_brain_mri
from oncoseg.phantom.folder import Progress
from oncoseg.phantom.lung_ct import make_lung_ct

__all__ = ["PHANTOMS", "MakePhantom", "Progress", "make_brain_mri", "make_lung_ct"]


class MakePhantom(Protocol):
    """Writes `cases` synthetic cases below the new folder `out`; equal seeds give equal voxels."""

    def __call__(self, out: Path, cases: int, seed: int, progress: Progress | None = None) -> None:
        """Write the cases; see `oncoseg.phantom.folder.write_cases` for what it raises."""


PHANTOMS: dict[str, MakePhantom] = {
    "brain-mri": make_brain_mri,
    "lung-ct": make_lung_ct,
}
"""Each phantom by its name on the command line."""
