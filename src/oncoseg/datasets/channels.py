"""One spelling per channel: what data sets call their sequences → the names that recipes use."""

import re

from oncoseg.datasets.folders import safe_id

SPELLINGS = {
    "CT": ("ct", "cta", "ctce"),
    "T1": ("t1", "t1w", "t1n", "t1weighted"),
    "T1ce": ("t1ce", "t1c", "t1gd", "t1wce", "t1post", "t1+c"),
    "T2": ("t2", "t2w", "t2weighted"),
    "FLAIR": ("flair", "t2f", "t2flair"),
    "MR": ("mr", "mri"),
    "ADC": ("adc",),
    "PET": ("pet", "pt"),
}
"""Channel → its spellings in small letters, without spaces, hyphens and underscores."""

PREFIX = re.compile("^mri?(?=.)")
"""`MR_T1` is T1."""


def channel_name(text: str) -> str:
    """The name of a channel; one of no known spelling stays as it is, fit for a file's name."""
    plain = re.sub(r"[\s_-]", "", text).lower()
    for spelled in (plain, PREFIX.sub("", plain)):
        for name, spellings in SPELLINGS.items():
            if spelled in spellings:
                return name
    return safe_id(text.strip())


def channel_names(texts: list[str]) -> list[str]:
    """The names of a data set's channels; a name that comes again gets a number."""
    names: list[str] = []
    for text in texts:
        name = channel_name(text)
        same = [other for other in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", other)]
        names.append(f"{name}-{len(same) + 1}" if same else name)
    return names
