"""Choosing one series of several."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from oncoseg.errors import DataError
from oncoseg.io.dicom.deidentify.words import known_words
from oncoseg.io.dicom.series import Series

SHOWN_CANDIDATES = 20
"""How many series an error lists."""


def choose(
    series: Sequence[Series],
    *,
    uid: str | None = None,
    modality: str | None = None,
    description: str | None = None,
) -> Series:
    """The one series that fits.

    Args:
        series: to choose from.
        uid: its SeriesInstanceUID.
        modality: such as `CT`.
        description: what its SeriesDescription contains, in any case of letters; or, with `*`, `?` or `[`,
            a pattern for all of it.

    Raises:
        DataError: none or several fit; lists them by number, modality, known words, size, part and UID;
            whole descriptions may name a patient.
    """
    fitting = [
        each
        for each in series
        if (uid is None or each.uid == uid)
        and (modality is None or each.modality.upper() == modality.upper())
        and (description is None or describes(each.description, description))
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not series:
        raise DataError("There is no series to choose from; expected at least one.")
    asked = {"uid": uid, "modality": modality, "description": description}
    wanted = ", ".join(f"{name} {value!r}" for name, value in asked.items() if value is not None)
    found = f"{len(fitting)} of {len(series)} series fit" if wanted else f"there are {len(series)} series"
    raise DataError(
        f"Expected one series{f' with {wanted}' if wanted else ''}, but {found}. Choose one by its uid, "
        f"modality or description:\n{listed(fitting or series)}"
    )


def describes(text: str, wanted: str) -> bool:
    """Whether a description contains a text, or matches a pattern; in any case of letters."""
    text, wanted = text.casefold(), wanted.casefold()
    return fnmatchcase(text, wanted) if any(sign in wanted for sign in "*?[") else wanted in text


def listed(series: Iterable[Series]) -> str:
    """One line for each series; see `label`."""
    lines = [f"  {label(each)}" for each in series]
    more = len(lines) - SHOWN_CANDIDATES
    return "\n".join(lines[:SHOWN_CANDIDATES] + [f"  … and {more} more"] * (more > 0))


def label(series: Series) -> str:
    """What tells a series from others; of its description the words that name nobody (see `known_words`)."""
    size = "×".join(map(str, series.grid))
    spacing = "×".join(f"{length:.3g}" for length in series.spacing_mm)
    number = "" if series.number is None else f"series {series.number}, "
    part = f", {series.part}" if series.part else ""
    words = known_words(series.description)
    said = f" {words!r}" if words else ""
    return f"{number}{series.modality}{said}, {size} voxels of {spacing} mm{part}, uid {series.uid}"
