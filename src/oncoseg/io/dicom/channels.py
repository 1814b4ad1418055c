"""Which series of a study shows what: guesses with their reasons, or a mapping that is given."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from oncoseg.errors import DataError
from oncoseg.io.dicom.choosing import choose, listed
from oncoseg.io.dicom.series import Series

UID = re.compile(r"[0-9]+(\.[0-9]+)+")
"""A UID, as opposed to part of a description."""

CONTRASTS = {
    "other": "adc|dwi|dti|trace.*|diff.*|swi|swan|t2star|perf.*|dsc|dce|asl|bold|fmri|tof|mra|angio.*|phase"
    "|mip|mpr|sub.*|scout|loc|localizer|survey|calib.*",
    "FLAIR": ".*flair.*|darkfluid|tirm|t2f",
    "T1": "t1.*|mp2?rage|f?spgr|bravo|tfl|vibe",
    "T2": "t2.*|haste",
}
"""Words of a description that say what an image shows, in the order in which they are looked for; `other` is
none of the four."""

WITHOUT_AGENT = "pre|without|wo|native?|non.*|unenhanced|plain|t1n"
"""Words that say that no contrast agent was given."""

WITH_AGENT = "c|ce|gd.*|gado?.*|post.*|contrast|enhanced|km|t1c.*|t1gd.*|t1.*post|dotarem|magnevist|prohance"
"""Words that say that a contrast agent was given."""

SHORT_ECHO_MS, LONG_ECHO_MS, SHORT_REPETITION_MS, LONG_REPETITION_MS = 30, 70, 1000, 2000
"""Spin echo: T1 weighting has short echo and repetition times, T2 weighting long ones."""

FLAIR_INVERSION_MS = (1500, 3500)
"""Inversion times that suppress fluid between 0.5 and 7 tesla."""


class Guess(NamedTuple):
    """A series and why it is taken for a channel, in words to show."""

    series: Series
    reason: str


def guess_channels(study: Sequence[Series]) -> dict[str, Guess]:
    """Guess which series are T1, T1ce, T2, FLAIR, CT and PT; show the reasons before using them.

    MR goes by words in SeriesDescription, ProtocolName and SequenceName, then by the contrast agent and by
    echo, repetition and inversion time. Where several series fit a channel, the one with the most slices is
    taken, then the first; the reason says so.

    Args:
        study: series of one examination.
    """
    fitting: dict[str, list[Guess]] = {}
    for series in study:
        channel, reason = _channel_of(series)
        if channel:
            fitting.setdefault(channel, []).append(Guess(series, reason))
    return {channel: _best(guesses) for channel, guesses in sorted(fitting.items())}


def map_channels(study: Sequence[Series], wanted: Mapping[str, str]) -> dict[str, Series]:
    """Take the series that a mapping names.

    Args:
        study: series of one examination.
        wanted: channel → SeriesInstanceUID, or what SeriesDescription contains or matches (see `choose`).

    Raises:
        DataError: none or several series fit a channel, or one fits two.
    """
    chosen: dict[str, Series] = {}
    for channel, pattern in wanted.items():
        by_uid = UID.fullmatch(pattern) is not None
        try:
            series = choose(study, uid=pattern) if by_uid else choose(study, description=pattern)
        except DataError as error:
            raise DataError(f"Channel {channel}: {error}") from error
        twice = [name for name, other in chosen.items() if other is series]
        if twice:
            raise DataError(
                f"Channels {twice[0]} and {channel} would be one series; expected two:\n{listed([series])}"
            )
        chosen[channel] = series
    return chosen


def _best(guesses: Sequence[Guess]) -> Guess:
    best = max(guesses, key=lambda guess: guess.series.grid[2])
    if len(guesses) == 1:
        return best
    return best._replace(reason=f"{best.reason}; of {len(guesses)} series that fit, the one with most slices")


def _channel_of(series: Series) -> tuple[str, str]:
    """A channel, or an empty name; and why."""
    if series.modality in ("CT", "PT"):
        return series.modality, f"its modality is {series.modality}"
    if series.modality != "MR":
        return "", ""
    texts = {
        "description": series.description,
        "protocol name": series.protocol.get("ProtocolName", ""),
    }
    for what, text in texts.items():
        channel, said = _by_words(text)
        if channel == "other":
            return "", ""
        if channel:
            return _with_agent(series, channel, f"its {what} says {said}", text)
    channel, reason = _by_times(series)
    return _with_agent(series, channel, reason, series.description) if channel else ("", "")


def _by_words(text: str) -> tuple[str, str]:
    """A channel, `other` or nothing, and the word that says so."""
    for channel, known in CONTRASTS.items():
        said = _word(text, known)
        if said and channel == "FLAIR" and _word(text, CONTRASTS["T1"]):
            continue  # fluid is suppressed, but it is the T1 weighting that counts
        if said:
            return channel, repr(said)
    return "", ""


def _word(text: str, known: str) -> str:
    """The first word of a text that matches, or nothing."""
    joined = re.sub("dark.fluid", "darkfluid", text.casefold())
    joined = re.sub(r"t2(\*|.star)", "t2star", joined)
    return next((word for word in re.findall("[a-z0-9]+", joined) if re.fullmatch(known, word)), "")


def _by_times(series: Series) -> tuple[str, str]:
    echo, repetition, inversion = (
        _milliseconds(series, keyword) for keyword in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    if echo is None or repetition is None:
        return "", ""
    times = f"echo time {echo:g} ms and repetition time {repetition:g} ms"
    shortest, longest = FLAIR_INVERSION_MS
    if inversion is not None and shortest <= inversion <= longest and echo >= LONG_ECHO_MS:
        return "FLAIR", f"inversion time {inversion:g} ms with {times} suppress fluid"
    if echo <= SHORT_ECHO_MS and repetition <= SHORT_REPETITION_MS:
        return "T1", f"{times} are short"
    if echo >= LONG_ECHO_MS and repetition >= LONG_REPETITION_MS:
        return "T2", f"{times} are long"
    return "", ""


def _with_agent(series: Series, channel: str, reason: str, text: str) -> tuple[str, str]:
    """T1 with or without a contrast agent."""
    if channel != "T1":
        return channel, reason
    if without := _word(text, WITHOUT_AGENT):
        return "T1", f"{reason} and {without!r}"
    if said := _word(text, WITH_AGENT):
        return "T1ce", f"{reason} and {said!r}"
    if series.protocol.get("ContrastBolusAgent"):
        return "T1ce", f"{reason}, and its header names a contrast agent"
    return "T1", f"{reason}, and nothing names a contrast agent"


def _milliseconds(series: Series, keyword: str) -> float | None:
    try:
        return float(series.protocol[keyword])
    except (KeyError, ValueError):
        return None
