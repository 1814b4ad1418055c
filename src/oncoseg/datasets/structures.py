"""Annotations that name what they mark (RTSTRUCT, DICOM SEG, Slicer's): which structure gets which label."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from oncoseg.io import SEGMENTATION_SUFFIX, is_dicom
from oncoseg.io.dicom.deidentify.words import all_known, known_words

TUMOUR = re.compile("gtv|tumou?r|lesion|mass|neoplasm|cancer|carcinoma|metasta", re.IGNORECASE)
"""Structures that lie inside of others, and are drawn over them."""

Labels = Mapping[str, Sequence[str]]
"""Label → names or patterns of structures, in the order in which they are drawn."""


def is_annotation(file: Path) -> bool:
    """Whether a mask's file holds named structures."""
    return file.name.lower().endswith(SEGMENTATION_SUFFIX) or is_dicom(file)


def structure_names(file: Path) -> tuple[str, ...]:
    """The names of an annotation's structures.

    Raises:
        DataError: it cannot be used.
    """
    if file.name.lower().endswith(SEGMENTATION_SUFFIX):
        from oncoseg.io.segments import list_segments

        return tuple(segment.name for segment in list_segments(file))
    from oncoseg.io.annotations import list_structures

    return tuple(structure.name for structure in list_structures(file))


def own_labels(names: Iterable[str]) -> dict[str, list[str]]:
    """A label for each structure, tumours last; of a name that may hold a patient's only known words stay."""
    ordered = sorted(set(names), key=lambda name: (TUMOUR.search(name) is not None, name))
    labels = {}
    for number, name in enumerate(ordered, 1):
        labels[name if all_known(name) else f"{known_words(name) or 'structure'} {number}"] = [name]
    return labels


def structures_of(
    names: Sequence[str], labels: Labels, values: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """(Structure, its label's value), in the order in which they are drawn.

    Args:
        names: of an annotation's structures.
        labels: see `Labels`; names count in any case of letters.
        values: label → value.
    """
    return tuple(
        (name, values[label])
        for label, patterns in labels.items()
        for name in names
        if any(name == pattern or fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)
    )
