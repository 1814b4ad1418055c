"""The part of an image that masks mark."""

import numpy as np


def bounding_box(*masks: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds every voxel that is not 0 in one of the masks; of one voxel without any.

    Args:
        masks: bool or labels, of one shape with any number of axes, in any order of memory.
    """
    box = []
    axes = range(masks[0].ndim)
    for axis in axes:
        others = tuple(other for other in axes if other != axis)
        filled = np.flatnonzero(np.any([mask.any(axis=others) for mask in masks], axis=0))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, 1))
    return tuple(box)
