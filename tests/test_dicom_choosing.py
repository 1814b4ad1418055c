"""Choosing a series, and guessing which one shows what."""

from typing import Any

import numpy as np
import pytest

from oncoseg.errors import DataError
from oncoseg.io.dicom.channels import guess_channels, map_channels
from oncoseg.io.dicom.choosing import choose
from oncoseg.io.dicom.series import Series


def series(
    description: str = "", uid: str = "1.2.3", modality: str = "MR", slices: int = 5, **protocol: Any
) -> Series:
    texts = {keyword: str(value) for keyword, value in protocol.items()}
    return Series(uid, "1.2", "", modality, description, 7, (), (4, 4, slices), np.eye(4), protocol=texts)


STUDY = [
    series("T1 axial pre", "1.1"),
    series("T1 axial post Gd", "1.2"),
    series("T2 FLAIR", "1.3"),
    series("T2 tse", "1.4"),
    series("Thorax", "1.5", "CT"),
]


@pytest.mark.parametrize(
    ("wanted", "uid"),
    [
        ({"uid": "1.3"}, "1.3"),
        ({"modality": "CT"}, "1.5"),
        ({"modality": "ct"}, "1.5"),
        ({"description": "flair"}, "1.3"),
        ({"description": "t2*"}, None),
        ({"description": "T2 T?E"}, "1.4"),
        ({"description": "*post*"}, "1.2"),
        ({"modality": "MR", "description": "tse"}, "1.4"),
    ],
)
def test_one_series_is_chosen(wanted: dict[str, str], uid: str | None) -> None:
    if uid:
        assert choose(STUDY, **wanted).uid == uid
        return
    with pytest.raises(DataError, match="but 2 of 5 series fit"):
        choose(STUDY, **wanted)


def test_an_error_lists_the_candidates_by_what_names_nobody() -> None:
    with pytest.raises(DataError) as caught:
        choose(STUDY, description="T1")
    assert str(caught.value) == (
        "Expected one series with description 'T1', but 2 of 5 series fit. Choose one by its uid, modality "
        "or description:\n"
        "  series 7, MR 'T1 axial pre', 4×4×5 voxels of 1×1×1 mm, uid 1.1\n"
        "  series 7, MR 'T1 axial post Gd', 4×4×5 voxels of 1×1×1 mm, uid 1.2"
    )


def test_nothing_fits() -> None:
    with pytest.raises(DataError, match=r"but 0 of 5 series fit(.|\n)*uid 1\.5"):
        choose(STUDY, modality="PT")
    with pytest.raises(DataError, match="there are 5 series"):
        choose(STUDY)
    with pytest.raises(DataError, match="There is no series to choose from"):
        choose([], modality="CT")


def test_a_long_list_is_cut() -> None:
    with pytest.raises(DataError, match="… and 10 more"):
        choose([series("T1", f"1.{n}") for n in range(30)])


@pytest.mark.parametrize(
    ("description", "protocol", "channel"),
    [
        ("T1 axial", {}, "T1"),
        ("t1_mprage_sag_p2_iso", {}, "T1"),
        ("SAG MPRAGE", {}, "T1"),
        ("AX T1 PRE", {"ContrastBolusAgent": "yes"}, "T1"),
        ("T1 without contrast", {}, "T1"),
        ("BRAVO", {}, "T1"),
        ("T1w", {}, "T1"),
        ("t1 flair", {}, "T1"),
        ("T1 AXIAL POST", {}, "T1ce"),
        ("AX T1 +C", {}, "T1ce"),
        ("t1_mprage_km", {}, "T1ce"),
        ("T1-Gad", {}, "T1ce"),
        ("T1", {"ContrastBolusAgent": "Gadovist"}, "T1ce"),
        ("t1ce", {}, "T1ce"),
        ("T1GD", {}, "T1ce"),
        ("T2 tse tra", {}, "T2"),
        ("t2w", {}, "T2"),
        ("T2 FLAIR", {}, "FLAIR"),
        ("t2_tirm_tra_dark-fluid", {}, "FLAIR"),
        ("AX FLAIR post", {}, "FLAIR"),
        ("3D_FLAIR_SPACE", {}, "FLAIR"),
        ("", {"ProtocolName": "T2 tse"}, "T2"),
        ("head", {"EchoTime": 12, "RepetitionTime": 500}, "T1"),
        ("head", {"EchoTime": 12, "RepetitionTime": 500, "ContrastBolusAgent": "x"}, "T1ce"),
        ("head", {"EchoTime": 100, "RepetitionTime": 4000}, "T2"),
        ("head", {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500}, "FLAIR"),
        ("head", {"EchoTime": 50, "RepetitionTime": 1500}, None),
        ("head", {}, None),
        ("head", {"EchoTime": "long", "RepetitionTime": 500}, None),
        ("ep2d_diff_tra ADC", {}, None),
        ("t2* gre", {}, None),
        ("T2_star", {}, None),
        ("T1 subtraction", {}, None),
        ("SWI mIP", {}, None),
        ("TOF 3D", {"EchoTime": 3, "RepetitionTime": 20}, None),
    ],
)
def test_guesses(description: str, protocol: dict[str, Any], channel: str | None) -> None:
    guesses = guess_channels([series(description, **protocol)])
    assert list(guesses) == ([channel] if channel else [])


def test_ct_and_pet_are_what_their_modality_says() -> None:
    guesses = guess_channels([series("whatever", modality="CT"), series("T1", modality="PT")])
    assert {channel: guess.reason for channel, guess in guesses.items()} == {
        "CT": "its modality is CT",
        "PT": "its modality is PT",
    }


def test_every_guess_has_its_reason() -> None:
    reasons = {channel: guess.reason for channel, guess in guess_channels(STUDY).items()}
    assert reasons == {
        "CT": "its modality is CT",
        "FLAIR": "its description says 'flair'",
        "T1": "its description says 't1' and 'pre'",
        "T1ce": "its description says 't1' and 'post'",
        "T2": "its description says 't2'",
    }
    (by_times,) = guess_channels([series("head", EchoTime=12, RepetitionTime=500)]).values()
    assert by_times.reason == (
        "echo time 12 ms and repetition time 500 ms are short, and nothing names a contrast agent"
    )


def test_of_several_the_one_with_most_slices_is_taken_and_said() -> None:
    study = [
        series("T2 a", "1.1", slices=5),
        series("T2 b", "1.2", slices=9),
        series("T2 c", "1.3", slices=9),
    ]
    guess = guess_channels(study)["T2"]
    assert guess.series.uid == "1.2"
    assert guess.reason == "its description says 't2'; of 3 series that fit, the one with most slices"


def test_a_mapping_names_series_by_description_or_uid() -> None:
    chosen = map_channels(STUDY, {"T1": "*pre", "T1ce": "1.2", "FLAIR": "flair"})
    assert {channel: each.uid for channel, each in chosen.items()} == {
        "T1": "1.1",
        "T1ce": "1.2",
        "FLAIR": "1.3",
    }


def test_a_mapping_that_does_not_fit() -> None:
    with pytest.raises(DataError, match="Channel T1: Expected one series with description 'T1', but 2 of 5"):
        map_channels(STUDY, {"T1": "T1"})
    with pytest.raises(DataError, match="Channels T2 and FLAIR would be one series; expected two"):
        map_channels(STUDY, {"T2": "1.3", "FLAIR": "flair"})
