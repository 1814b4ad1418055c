"""Label maps: several readers to one, label values to classes, another grid."""

from collections.abc import Mapping, Sequence

import numpy as np

from oncoseg.errors import DataError
from oncoseg.volume import Volume

SHOWN_VALUES = 9
"""How many label values a message lists."""


def consensus(masks: Sequence[np.ndarray], share: float) -> np.ndarray:
    """Label a voxel where at least `share` of the readers do.

    With several readers, a voxel gets the smallest of the labels that reach the share; 0.5 is a
    majority vote that keeps ties (system S1: at least half of the readers).

    Args:
        masks: one integer array per reader, all of one shape.
        share: in (0, 1].
    """
    if len(masks) == 1:
        return masks[0]
    stack = np.stack(masks)
    agreed = np.zeros_like(masks[0])
    for label in reversed(np.unique(stack)):
        if label != 0:
            agreed[(stack == label).sum(axis=0) >= share * len(masks)] = label
    return agreed


def check_share(share: float) -> None:
    """Check the share of readers that a consensus asks for.

    Raises:
        DataError: none or more than all of them.
    """
    if not 0 < share <= 1:
        raise DataError(f"Expected a share of the readers above 0 and up to 1 (--consensus), got {share:g}.")


def has_label(mask: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Where a mask holds one of several label values, as bool.

    The same as `np.isin`, in the mask's own order in memory and many times as fast for a few values.

    Args:
        mask: integers of any shape.
        values: the labels.
    """
    held = np.zeros_like(mask, bool)
    for value in values:
        held |= mask == value
    return held


def check_classes(declared: Sequence[Mapping[int, str]], classes: Mapping[str, Sequence[str]]) -> None:
    """Check that some case declares a label of every class, so that this is said once and not of every case.

    Args:
        declared: of every case, value → name.
        classes: class → names it joins, `*` for all.

    Raises:
        DataError: none of them does.
    """
    known = {name for labels in declared for name in labels.values()}
    for name, joined in classes.items():
        if known and "*" not in joined and known.isdisjoint(joined):
            raise DataError(
                f"Class {name} joins the labels {list(joined)}, of which no case has any; expected some of "
                f"{sorted(known)}. Change the recipe's field `classes`."
            )


def merge_labels(
    mask: np.ndarray, labels: Mapping[int, str], classes: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Replace a data set's label values by class indices 0 (background), 1, 2, ….

    Args:
        mask: integer array of any shape.
        labels: value → name, as the data set declares them; 0 is background.
        classes: class → names it joins, `*` for all, in the order of the indices; a name in two
            classes goes to the later one.

    Raises:
        DataError: a value outside the declared set, or a class without any declared label.
    """
    values = np.unique(mask)
    unknown = [value.item() for value in values if value != 0 and value.item() not in labels]
    if unknown:
        raise DataError(
            f"The mask holds the label values {unknown}; expected only 0 and {sorted(labels)}. Check that "
            "the file is the mask that belongs to this layout and was not interpolated."
        )
    merged = np.zeros(mask.shape, np.uint8)
    for index, (name, joined) in enumerate(classes.items(), start=1):
        members = [value for value, label in labels.items() if "*" in joined or label in joined]
        if not members:
            raise DataError(
                f"Class {name} joins the labels {list(joined)}, but the data set declares "
                f"{sorted(set(labels.values()))}. Change the recipe's field `classes`."
            )
        merged[np.isin(mask, members)] = index
    return merged


def relabel(mask: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """Replace label values one by one.

    Args:
        mask: whole numbers of any type, axes `i j k`.
        values: value → its new one, at most 255; 0 stays 0.

    Returns:
        uint8.

    Raises:
        DataError: the mask holds another value.
    """
    result = np.zeros(mask.shape, np.uint8, order="F")
    unknown: set[float] = set()
    for k in range(mask.shape[-1]):  # slice by slice, so that what is compared stays in the processor's cache
        known = mask[..., k] == 0
        for value, new in values.items():
            marked = mask[..., k] == value
            result[..., k][marked] = new
            known |= marked
        if not known.all():
            unknown |= set(np.unique(mask[..., k][~known]).tolist())
    if unknown:
        raise DataError(
            f"The mask holds the label values {sorted(unknown)[:SHOWN_VALUES]}; expected only 0 and "
            f"{sorted(values)}. Check that the file is the mask that belongs to this layout, that its labels "
            "are declared, and that it was not interpolated."
        )
    return result


def resample_labels(volume: Volume, like: Volume) -> Volume:
    """Bring a volume onto another grid by nearest neighbour; 0 outside of it.

    A volume ends half a voxel beyond the centres of its outermost voxels, so that none of these is lost where
    rounding puts it a hair beyond the other grid's.

    Args:
        volume: `c i j k`, labels or anything that must not be mixed.
        like: gives the grid.
    """
    from scipy.ndimage import affine_transform

    mapping = np.linalg.inv(volume.affine_ras) @ like.affine_ras
    moved = [
        affine_transform(channel, mapping[:3, :3], mapping[:3, 3], like.grid, order=0, mode="grid-constant")
        for channel in volume.array
    ]
    return like.with_array(np.stack(moved))
