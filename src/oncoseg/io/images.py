"""Reading stacks of 2D images (PNG, TIFF), one image per axial slice.

Such files hold no voxel size and no position. By the radiological convention columns run towards the
patient's Left and rows towards Posterior; slices are taken to run towards Superior.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from oncoseg.errors import DataError, GeometryError
from oncoseg.io.checks import check_finite, check_memory, check_regular
from oncoseg.volume import Volume

STACK_AFFINE_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Orientation of a stack, with 1 mm voxels in place of the unknown ones."""

MODES = frozenset({"1", "L", "I;16", "I;16L", "I;16B", "I", "F", "RGB"})
"""Pillow's modes whose numbers are intensities or labels; palettes and transparency are not among them."""

# Pillow warns about damaged metadata that is not needed here; damaged pixels raise
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def read_stack(files: Sequence[Path]) -> Volume:
    """Read 2D images as one volume.

    Returns:
        Axes `c i j k`: component (1 for grey, 3 for red, green, blue), column, row, slice.
        `spacing_known` is False.

    Raises:
        DataError: an image is missing, damaged, has several pages or is of an unfit kind.
        GeometryError: the images differ in size.
    """
    first = _read_image(files[0])
    check_memory(files[0], 2 * first.nbytes * len(files))  # the slices, and the stack of them
    slices = [first]
    for path in files[1:]:
        image = _read_image(path)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise GeometryError(
                f"The slices of one stack must be alike, but {files[0].name} is {_describe(first)} and "
                f"{path} is {_describe(image)}."
            )
        slices.append(image)
    array = np.stack(slices).transpose(3, 2, 1, 0)
    return Volume(array, STACK_AFFINE_RAS.copy(), spacing_known=False)


def _read_image(path: Path) -> np.ndarray:
    """One image with axes row, column, component."""
    from PIL import Image

    check_regular(path)
    try:
        with Image.open(path) as image:
            if image.mode not in MODES or getattr(image, "n_frames", 1) != 1:
                pages = getattr(image, "n_frames", 1)
                raise DataError(
                    f"{path} is an image of mode {image.mode} with {pages} page(s); expected one page of "
                    "grey or RGB numbers, without palette or transparency. Convert it first."
                )
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a PNG or TIFF image there.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable PNG or TIFF image: {error}. Copy it again.") from error
    pixels = pixels.astype(np.uint8 if pixels.dtype == bool else pixels.dtype.newbyteorder("="), copy=False)
    check_finite(pixels, path)
    return pixels.reshape(*pixels.shape[:2], -1)


def _describe(image: np.ndarray) -> str:
    rows, columns, components = image.shape
    return f"{columns}×{rows} with {components} component(s) of type {image.dtype}"
