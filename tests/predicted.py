"""From a folder of DICOM to masks in every format, by the predictor that `oncoseg predict` uses.

Its network marks what is bright, so that the mask must lie where the marker does.
"""

from pathlib import Path
from typing import NamedTuple

from test_predict import bright

SIDE = 32
"""Pixels along each side of the slices that the network gets: more than the images have, so that slices are
padded and resized on the way in and on the way back, and no voxel of the marker is lost on either."""


class Masks(NamedTuple):
    """One mask in every format."""

    nifti: Path
    seg: Path
    rtstruct: Path


def predict(images: Path, out: Path, side: int = SIDE) -> Masks:
    """Predict the one case that lies in a folder; nothing but air and metal is no patient."""
    predictor = bright(preparation__slice_size=[side, side])
    return Masks(
        *predictor.predict([images], out, modality="ct", formats=Masks._fields, accept_implausible=True)
    )
