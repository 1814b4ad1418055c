"""Fingerprints are remembered as long as the files do not change, and never believed when damaged."""

import os
from pathlib import Path

import numpy as np
import pytest

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.io import ImageRef
from oncoseg.leakage import ImageFingerprint, fingerprint_cases, forget_oldest, reading
from oncoseg.leakage.remembered import keep, place_of, recall
from tiny import brats_case

GRID = (40, 36, 6)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    brats_case(tmp_path / "data", 1, grid=GRID)
    return open_dataset(tmp_path / "data").cases[0]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every image that was described."""
    calls: list[int] = []
    original = reading.fingerprint
    monkeypatch.setattr(reading, "fingerprint", lambda image: calls.append(1) or original(image))
    return calls


def contents(case: Case, cache: Path) -> list[str | None]:
    (entry,), problems = fingerprint_cases([case], cache=cache, workers=0)
    assert problems == []
    return [image.content for image in entry.images.values()]


def test_the_second_time_nothing_is_read(case: Case, tmp_path: Path, computed: list[int]) -> None:
    first = contents(case, tmp_path / "cache")
    assert len(computed) == 4
    assert contents(case, tmp_path / "cache") == first
    assert len(computed) == 4


def test_a_changed_file_is_read_again(case: Case, tmp_path: Path, computed: list[int]) -> None:
    first = contents(case, tmp_path / "cache")
    t1, t2 = (case.images[name].files[0] for name in ("T1", "T2"))
    t1.write_bytes(t2.read_bytes())
    second = contents(case, tmp_path / "cache")
    assert len(computed) == 5
    assert second == [first[2], *first[1:]]
    state = t1.stat()
    os.utime(t1, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    contents(case, tmp_path / "cache")
    assert len(computed) == 6


def test_every_slice_and_the_content_come_back(tmp_path: Path) -> None:
    slices = np.random.default_rng(0).integers(0, 2**63, (5, 2, 4), dtype=np.uint64)
    for content in ("0123456789abcdef", None):
        keep(tmp_path / "x.npz", ImageFingerprint(content, slices))
        found = recall(tmp_path / "x.npz")
        assert found is not None
        assert found.content == content
        np.testing.assert_array_equal(found.slices, slices)
    keep(tmp_path / "x.npz", ImageFingerprint(None, slices[:0]))
    assert recall(tmp_path / "x.npz").slices.shape == (0, 2, 4)


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_memory_is_made_anew(
    damage: bytes | None, case: Case, tmp_path: Path, computed: list[int]
) -> None:
    first = contents(case, tmp_path / "cache")
    for path in (tmp_path / "cache").glob("*/*.npz"):
        path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    assert contents(case, tmp_path / "cache") == first
    assert len(computed) == 8
    assert contents(case, tmp_path / "cache") == first
    assert len(computed) == 8


def test_arrays_of_another_form_are_not_believed(tmp_path: Path) -> None:
    for slices in (np.zeros((3, 2, 4)), np.zeros((3, 8), np.uint64)):
        np.savez(tmp_path / "x.npz", content=np.array("x"), slices=slices)
        assert recall(tmp_path / "x.npz") is None
    np.savez(tmp_path / "x.npz", content=np.array("x"))
    assert recall(tmp_path / "x.npz") is None


def test_a_cache_that_cannot_be_written_keeps_nothing_from_being_found(case: Case, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert contents(case, tmp_path / "file") == contents(case, tmp_path / "cache")
    forget_oldest(tmp_path / "file")


def test_names_tell_nothing_of_the_path_and_colours_differ(tmp_path: Path) -> None:
    (tmp_path / "Doe_Jane.png").touch()
    files = (tmp_path / "Doe_Jane.png",)
    names = {place_of(tmp_path, ImageRef(files, component)) for component in (None, 0, 1)}
    assert len(names) == 3
    assert not any("Doe" in str(name.relative_to(tmp_path)) for name in names)
    assert place_of(tmp_path, ImageRef((tmp_path / "none.png",))) is None


def test_the_folder_stays_small_and_the_oldest_goes_first(tmp_path: Path) -> None:
    slices = np.zeros((100, 2, 4), np.uint64)
    places = [tmp_path / f"{number:02d}" / "x.npz" for number in range(6)]
    for number, place in enumerate(places):
        keep(place, ImageFingerprint("x", slices))
        os.utime(place, ns=(number, number))
    assert recall(places[0]) is not None  # used again, so that the second is the oldest now
    size = places[0].stat().st_size
    forget_oldest(tmp_path, largest_mib=3.5 * size / 2**20)
    assert [place.exists() for place in places] == [True, False, False, False, True, True]
    forget_oldest(tmp_path, largest_mib=1)
    assert sum(place.exists() for place in places) == 3
