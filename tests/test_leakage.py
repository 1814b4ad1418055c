"""Leakage: what hashes of slices say, what looks the same, and what two sides share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.io import ImageRef, read
from oncoseg.leakage import NO_IMAGE, Entry, ImageFingerprint, find_leaks, fingerprint, fingerprint_cases
from oncoseg.leakage.fingerprints import BITS, FREQUENCIES, packed, unpacked
from oncoseg.leakage.search import FEW_SLICES, MOST_BITS, MOST_BITS_OF_FEW, PROBES, Match, alike
from oncoseg.volume import Volume
from tiny import brats_case, lidc_nodule

GRID = (64, 56, 6)


def head(seed: int, grid: tuple[int, int, int] = GRID) -> np.ndarray:
    """An oval of smooth patterns, different for every seed, in a dark margin; values 0 … 1000."""
    i, j = np.ogrid[-1 : 1 : grid[0] * 1j, -1 : 1 : grid[1] * 1j]
    inside = ((i / 0.8) ** 2 + (j / 0.7) ** 2 < 1)[:, :, None]
    patterns = gaussian_filter(np.random.default_rng(seed).normal(size=grid), (3, 3, 1))
    patterns = (patterns - patterns.min()) / np.ptp(patterns)
    return (inside * (300 + 700 * patterns)).astype(np.float32)


def with_block(image: np.ndarray, at: int, side: int, value: float) -> np.ndarray:
    """A square of one value in all slices."""
    changed = image.copy()
    changed[at : at + side, at : at + side] = value
    return changed


def leaks_with(*images: np.ndarray, original: np.ndarray) -> list[str]:
    """The copies that are found beside an original and two others."""
    train = [entry("original", "P0", fingerprint(original))]
    train += [entry(f"other-{n}", f"P{n}", fingerprint(head(90 + n, original.shape))) for n in (1, 2)]
    test = [entry(f"copy-{n}", f"Q{n}", fingerprint(image)) for n, image in enumerate(images)]
    leaks = find_leaks({"train": train, "test": test})
    assert all(leak.case_a == "original" for leak in leaks)
    return [f"{leak.kind} {leak.case_b}" for leak in leaks]


def test_the_type_of_number_and_minus_zero_do_not_matter_for_identity():
    image = np.arange(3 * 4 * 2, dtype=np.uint8).reshape(3, 4, 2)
    assert fingerprint(image).content == fingerprint(image.astype(np.float32)).content
    assert fingerprint(image[None]).content == fingerprint(image).content
    assert fingerprint(np.where(image == 0, -0.0, image)).content == fingerprint(image).content


def test_one_voxel_or_another_shape_is_another_image():
    image = np.arange(24).reshape(2, 6, 2)
    changed = image.copy()
    changed[1, 2, 1] += 1
    contents = {
        fingerprint(one).content for one in (image, changed, image.reshape(6, 2, 2), image[..., ::-1])
    }
    assert len(contents) == 4


def test_a_volume_that_is_stored_along_other_axes_is_identical():
    voxels = head(0)[None]
    lps = Volume(np.ascontiguousarray(voxels[:, ::-1, ::-1]), np.diag([-1.0, -1.0, 1.0, 1.0]))
    ras = Volume(voxels, np.eye(4))
    assert fingerprint(lps).content == fingerprint(ras).content
    np.testing.assert_array_equal(fingerprint(lps).slices, fingerprint(ras).slices)


def test_an_image_with_one_value_is_like_no_other():
    zeros = fingerprint(np.zeros(GRID))
    assert zeros.content is None
    assert zeros.slices.shape == (0, 2, 4)
    assert find_leaks({"train": [entry("a", "A", zeros)], "test": [entry("b", "B", zeros)]}) == []


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros((2, 0, 3)), np.zeros((3, 3), complex)])
def test_arrays_that_are_no_image_are_refused(values):
    with pytest.raises(ValueError, match="Expected real voxels with axes"):
        fingerprint(values)
    with pytest.raises(ValueError, match="slice 1 holds others"):
        fingerprint(np.stack([np.zeros((4, 4)), np.full((4, 4), np.nan)], axis=-1))


@pytest.mark.parametrize(("u", "v"), [(0, 1), (1, 0), (3, 2), (0, 15), (15, 15)])
def test_a_cosine_sets_the_bit_of_its_frequency_and_its_negative_does_not(u, v):
    i, j = np.ogrid[:64, :96]
    wave = np.cos(np.pi * u * (i + 0.5) / 64) * np.cos(np.pi * v * (j + 0.5) / 96)
    positive, negative = (unpacked(fingerprint(image).slices)[0, 0] for image in (wave, -wave))
    assert positive[u, v]
    assert not negative[u, v]


def test_mirroring_negates_the_odd_frequencies_of_that_axis_in_both_hashes():
    image = np.pad(head(0), ((0, 0), (3, 14), (0, 0)))
    bits, mirrored = (unpacked(fingerprint(one).slices) for one in (image, image[:, ::-1]))
    np.testing.assert_array_equal(mirrored[..., 0::2], bits[..., 0::2])
    np.testing.assert_array_equal(mirrored[..., 1::2], ~bits[..., 1::2])


def test_the_mean_has_no_bit():
    assert not unpacked(fingerprint(head(0)).slices)[..., 0, 0].any()
    assert not unpacked(fingerprint(-head(0)).slices)[..., 0, 0].any()


def test_frequencies_that_are_zero_but_for_rounding_have_no_bit():
    i, j = np.ogrid[-1:1:64j, -1:1:96j]
    for symmetric in (i**2 + np.cos(3 * j), 3.7 * (i**2 + np.cos(3 * j)) + 0.1):
        bits = unpacked(fingerprint(symmetric).slices)
        assert not bits[..., 1::2, :].any()
        assert not bits[..., :, 1::2].any()


def test_bits_are_unpacked_as_they_were_packed():
    bits = np.random.default_rng(0).random((3, 2, FREQUENCIES, FREQUENCIES)) < 0.5
    assert packed(bits).shape == (3, 2, 4)
    np.testing.assert_array_equal(unpacked(packed(bits)), bits)


def test_slices_with_little_content_are_left_out():
    volume = np.zeros((64, 64, 5))
    texture = np.random.default_rng(0).integers(200, 1000, (60, 60))
    volume[2:-2, 2:-2, 0] = texture  # 60 × 60 pixels of 64 × 64
    volume[10:-10, 10:-10, 1] = texture[:44, :44]  # 44 × 44, half of the area
    volume[20:-20, 20:-20, 2] = texture[:24, :24]  # 24 × 24, a sixth
    volume[2:-2, 2:-2, 3] = texture / 100  # next to no signal
    assert len(fingerprint(volume).slices) == 2
    assert len(fingerprint(volume[:, :, 2]).slices) == 1  # on its own it is all there is


def test_slices_with_one_value_do_not_count_as_content():
    volume = np.full((64, 64, 9), 0.1)
    volume[20:44, 20:44, 4] = np.random.default_rng(0).random((24, 24))
    assert len(fingerprint(volume).slices) == 1


def test_a_spot_that_vanishes_in_the_thumbnail_has_no_hash():
    image = np.zeros((640, 640))
    image[100:116, 200:216] = np.random.default_rng(0).random((16, 16)) + 1
    assert fingerprint(image).content is not None
    assert len(fingerprint(image).slices) == 0


def test_an_image_that_is_too_small_for_its_frequencies_is_compared_by_its_voxels_only():
    small = np.random.default_rng(0).random((15, 40, 3))
    assert fingerprint(small).slices.shape == (0, 2, 4)
    assert leaks_with(small, small * 2, original=small) == ["identical-image copy-0"]


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "other-unit": lambda image: image * 3 - 100,
    "gamma": lambda image: (image / 1000) ** 0.7,
    "8-bit": lambda image: np.round(image / 1000 * 255).astype(np.uint8),
    "noise": lambda image: image + np.random.default_rng(0).normal(0, 10, image.shape),
    "twice-the-size": lambda image: zoom(image, (2, 2, 1), order=1),
    "other-slice-spacing": lambda image: zoom(image, (1, 1, 0.8), order=1),
    "a-slice-on": lambda image: image[:, :, 1:],
    "reversed": lambda image: image[:, :, ::-1],
    "margin-added": lambda image: np.pad(image, ((20, 5), (3, 14), (0, 0))),
    "margin-cut": lambda image: image[5:-5, 6:-6],
    "margin-with-a-speck": lambda image: with_block(np.pad(image, ((20, 5), (3, 14), (0, 0))), 2, 1, 1000),
    "metal": lambda image: with_block(image, 30, 3, 4000),
    "slices-padded": lambda image: np.pad(image, ((0, 0), (0, 0), (10, 10))),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_that_was_processed_is_found(copy):
    image = head(0)
    assert leaks_with(COPIES[copy](image), head(1), original=image) == ["similar-image copy-0"]


@pytest.mark.parametrize("turn", range(1, 8))
def test_a_copy_that_is_turned_or_mirrored_is_found_and_said_to_be(turn):
    image = head(0)
    turned = np.rot90(image[::-1] if turn >= 4 else image, turn % 4)
    entries = [entry("a", "A", fingerprint(image))], [entry("b", "B", fingerprint(turned))]
    (leak,) = find_leaks({"train": entries[0], "test": entries[1]})
    assert leak.kind == "similar-image"
    assert leak.similarity > 0.99
    assert "after turning or mirroring" in leak.message


def test_one_slice_of_a_volume_is_found_as_an_image_of_its_own():
    image = head(0)
    assert leaks_with(image[:, :, 3], image[:, :, 3] * 2 + 1, head(1)[:, :, 3], original=image) == [
        "similar-image copy-0",
        "similar-image copy-1",
    ]


def test_an_image_warped_out_of_place_is_not_found():
    image = head(0)
    assert leaks_with(np.roll(image, (9, 9), (0, 1))[10:], original=image) == []  # cut within the body


def hashes(count: int, seed: int = 0) -> np.ndarray:
    """Fingerprints of slices that have nothing in common."""
    bits = np.random.default_rng(seed).random((count, 2, FREQUENCIES, FREQUENCIES)) < 0.5
    bits[..., 0, 0] = False
    return packed(bits)


def with_flipped(slices: np.ndarray, number: int) -> np.ndarray:
    """Both hashes of all slices with so many bits changed, evenly spread."""
    flip = np.zeros(FREQUENCIES**2, bool)
    flip[np.linspace(1, BITS, number).round().astype(int)] = True
    return slices ^ packed(flip.reshape(FREQUENCIES, FREQUENCIES))


@pytest.mark.parametrize(
    ("slices", "most"), [(1, MOST_BITS_OF_FEW), (FEW_SLICES, MOST_BITS), (20, MOST_BITS)]
)
def test_as_many_bits_as_allowed_may_differ_and_not_one_more(slices, most):
    image = hashes(slices)
    assert alike([image], [with_flipped(image, most)]) == [Match(0, 0, most, turned=False)]
    assert alike([image], [with_flipped(image, most + 1)]) == []


@pytest.mark.parametrize("view", [0, 1])
def test_one_of_the_two_hashes_is_enough(view):
    image, other = hashes(4), hashes(4, seed=1)
    other[:, view] = image[:, view]
    assert alike([image], [other]) == [Match(0, 0, 0, turned=False)]


@pytest.mark.parametrize("count", [FEW_SLICES, 5, PROBES])
def test_more_than_half_of_the_slices_must_be_found(count):
    image, more = hashes(count), hashes(30, seed=1)
    needed = count // 2 + 1
    assert alike([image], [np.concatenate([more, image[:needed]])]) == [Match(0, 0, 0, turned=False)]
    assert alike([image], [np.concatenate([more, image[: needed - 1]])]) == []


def test_the_smaller_image_is_looked_for_whichever_side_it_is_on():
    study, part = hashes(40), hashes(40)[10:15]
    assert alike([hashes(7, 1), study], [hashes(3, 2), part]) == [Match(1, 1, 0, turned=False)]
    assert alike([hashes(3, 2), part], [hashes(7, 1), study]) == [Match(1, 1, 0, turned=False)]
    assert alike([], [part]) == alike([part], [NO_IMAGE.slices]) == []


def differing_by_definition(a: np.ndarray, b: np.ndarray) -> int:
    """Loops instead of galleries: the smaller one's middle slice, as it lies."""
    few, many = (unpacked(image) for image in ((a, b) if len(a) <= len(b) else (b, a)))
    middles = []
    for view in range(2):
        nearest = [min(int((one[view] != other[view]).sum()) for other in many) for one in few]
        middles.append(sorted(nearest)[len(few) // 2])
    return min(middles)


@given(st.lists(st.integers(4, 8), min_size=2, max_size=8), st.integers(0, 12), st.integers(0, 2**31))
@settings(max_examples=40)
def test_the_search_agrees_with_its_definition_slice_by_slice(counts, block, seed):
    rng = np.random.default_rng(seed)
    pool = hashes(5, seed)
    images = [with_flipped(pool, int(rng.integers(0, 40)))[rng.integers(0, 5, count)] for count in counts]
    a, b = images[::2], images[1::2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oncoseg.leakage.search.BLOCK", block + 1)
        patch.setattr("oncoseg.leakage.search.MOST_FIRST_BITS", 64)
        found = {(match.a, match.b): match.differing for match in alike(a, b)}
    expected = {
        (m, n): differing_by_definition(one, two) for m, one in enumerate(a) for n, two in enumerate(b)
    }
    assert found == {pair: bits for pair, bits in expected.items() if bits <= MOST_BITS}


def entry(case: str, patient: str, *images: ImageFingerprint, **named: ImageFingerprint) -> Entry:
    """A case with images of the channels `channel-0` … and of those that are named."""
    return Entry(case, patient, {f"channel-{n}": image for n, image in enumerate(images)} | named)


def test_a_patient_on_two_sides_is_told_once_whatever_the_letters_case_and_blanks():
    train = [entry("a-0", "Site 1-P7"), entry("a-1", "Site 1-P7"), entry("a-2", "P8")]
    test = [entry("t-0", "P9"), entry("t-1", " site  1-p7 ")]
    (leak,) = find_leaks({"train": train, "validation": [entry("v", "P1")], "test": test})
    assert leak[:6] == ("same-patient", "train", "a-0", "test", "t-1", None)
    assert leak.message == (
        "The patient ' site  1-p7 ' and 'Site 1-P7' is in train (a-0 and 1 more) and in test (t-1). Move all "
        "cases of a patient to one side."
    )


@pytest.mark.parametrize("other", ["P07", "site-P7", "P 7", "7"])
def test_patients_whose_ids_only_resemble_each_other_are_not_guessed_to_be_one(other):
    assert find_leaks({"train": [entry("a", "P7")], "test": [entry("b", other)]}) == []


def test_unknown_patients_are_not_taken_for_one_and_their_images_are_compared():
    assert find_leaks({"train": [entry("a", "")], "test": [entry("b", " ")]}) == []
    image = fingerprint(head(0))
    (leak,) = find_leaks({"train": [entry("a", "", image)], "test": [entry("b", "", image)]})
    assert leak.kind == "identical-image"


def test_identical_images_are_told_as_such_and_not_as_similar():
    image = fingerprint(head(0))
    (leak,) = find_leaks({"train": [entry("a", "A", image)], "test": [entry("b", "B", image)]})
    assert leak[:6] == ("identical-image", "train", "a", "test", "b", 1.0)
    assert leak.message.startswith("a in train and b in test hold exactly the same voxels (channel-0).")


def test_images_of_one_patient_are_not_told_beside_the_patient():
    a, b = fingerprint(head(0)), fingerprint(head(0) * 2)
    sides = {"train": [entry("a", "A", a)], "test": [entry("b", "A", b), entry("c", "a", a)]}
    assert [leak.kind for leak in find_leaks(sides)] == ["same-patient"]


def test_cases_of_one_side_are_not_compared():
    image = fingerprint(head(0))
    assert find_leaks({"train": [entry("a", "A", image), entry("b", "B", image)], "test": []}) == []


def test_every_two_sides_are_compared_and_the_most_similar_image_comes_first():
    image = hashes(6)
    near, far = (ImageFingerprint(str(bits), with_flipped(image, bits)) for bits in (5, 20))
    original = ImageFingerprint("0", image)
    sides = {
        "train": [entry("a", "A", original)],
        "validation": [entry("v", "V", far)],
        "test": [entry("t", "T", far), entry("u", "U", near), entry("w", "W", original)],
    }
    found = [(*leak[1:5], leak.kind, round(255 * (1 - leak.similarity))) for leak in find_leaks(sides)]
    assert found == [
        ("train", "a", "validation", "v", "similar-image", 20),
        ("train", "a", "test", "w", "identical-image", 0),
        ("train", "a", "test", "u", "similar-image", 5),
        ("train", "a", "test", "t", "similar-image", 20),
        ("validation", "v", "test", "t", "identical-image", 0),
        ("validation", "v", "test", "w", "similar-image", 20),
        ("validation", "v", "test", "u", "similar-image", 21),  # 5 + 20, but both flip the first and the last
    ]


def test_every_channel_is_compared_with_every_channel():
    t1, t2, flair, other = (fingerprint(head(seed)) for seed in range(4))
    train = [entry("a", "A", T1=t1, T2=t2, FLAIR=flair)]
    swapped = entry("b", "B", T1=flair, T2=other)
    copied = entry("c", "C", T1=t1, T2=t2, FLAIR=fingerprint(head(2) * 2))
    (one,) = find_leaks({"train": train, "test": [swapped]})
    assert one[:6] == ("identical-image", "train", "a", "test", "b", 1.0)
    assert "the same voxels (FLAIR as T1)." in one.message
    (two,) = find_leaks({"train": train, "test": [copied]})  # told once, by what is surest
    assert two.kind == "identical-image"
    assert "the same voxels (T1, T2)." in two.message


def test_the_most_similar_channels_are_told():
    near, far, image = (with_flipped(hashes(6), bits) for bits in (5, 20, 0))
    original = {"T1": ImageFingerprint("0", image), "T2": ImageFingerprint("1", hashes(6, seed=1))}
    copy = {"T1": ImageFingerprint("2", far), "FLAIR": ImageFingerprint("3", near)}
    (leak,) = find_leaks({"train": [entry("a", "A", **original)], "test": [entry("b", "B", **copy)]})
    assert leak.kind == "similar-image"
    assert leak.similarity == 1 - 5 / BITS
    assert "look the same (T1 as FLAIR): more than half" in leak.message


def test_channels_of_one_case_that_repeat_each_other_are_told_once():
    image = fingerprint(head(0))
    repeated = entry("a", "A", T1ce=image, FLAIR=image)
    (leak,) = find_leaks({"train": [repeated], "test": [entry("b", "B", T1ce=image, FLAIR=image)]})
    assert "(T1ce, FLAIR)" in leak.message


def test_progress_counts_every_image_against_each_other_side():
    image = fingerprint(head(0))
    seen: list[tuple[int, int]] = []
    sides = {name: [entry(name, name, image, fingerprint(head(seed)))] for seed, name in enumerate("abc", 1)}
    find_leaks(sides, lambda *done: seen.append(done))
    assert seen == [(number, 12) for number in range(1, 13)]


def test_cases_that_cannot_be_read_keep_their_patient(tmp_path: Path):
    brats_case(tmp_path, 1)
    (good,) = open_dataset(tmp_path).cases
    gone = Case("gone", "P2", {"T1": ImageRef((tmp_path / "none.nii.gz",)), "T2": good.images["T2"]})
    bare = Case("bare", "P3", {})
    done: list[tuple[int, int]] = []
    entries, problems = fingerprint_cases(
        [good, gone, bare], workers=0, progress=lambda *now: done.append(now)
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert [(one.case, one.patient) for one in entries] == [
        (good.id, good.patient),
        ("gone", "P2"),
        ("bare", "P3"),
    ]
    assert [list(one.images) for one in entries] == [["T1", "T1ce", "T2", "FLAIR"], ["T2"], []]
    assert [(problem.kind, problem.case) for problem in problems] == [
        ("unreadable", "gone"),
        ("missing-channel", "bare"),
    ]


def test_all_channels_are_read_unless_one_is_named(tmp_path: Path):
    lidc_nodule(tmp_path / "ct", 1)
    brats_case(tmp_path / "mri", 1)
    (ct,), (mri,) = (open_dataset(tmp_path / name).cases for name in ("ct", "mri"))
    (all_ct, all_mri), no_problems = fingerprint_cases([ct, mri], workers=0)
    (named_ct, named_mri), problems = fingerprint_cases([ct, mri], "FLAIR", workers=0)
    assert no_problems == []
    assert [(problem.kind, problem.case) for problem in problems] == [("missing-channel", ct.id)]
    assert (list(named_ct.images), list(named_mri.images)) == ([], ["FLAIR"])
    contents = {name: image.content for name, image in all_mri.images.items()}
    assert contents == {name: fingerprint(read(ref)).content for name, ref in mri.images.items()}
    assert list(all_ct.images) == ["CT"]
    assert named_mri.images["FLAIR"].content == contents["FLAIR"]


def test_the_colours_of_a_picture_are_channels_of_their_own(tmp_path: Path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "x.png")
    refs = {name: ImageRef((tmp_path / "x.png",), number) for number, name in enumerate("rgb")}
    (entry_of,), _ = fingerprint_cases([Case("x", "X", refs)], cache=tmp_path / "cache", workers=0)
    contents = [image.content for image in entry_of.images.values()]
    assert contents == [fingerprint(read(ref)).content for ref in refs.values()]
    assert len(set(contents)) == 3
    (again,), _ = fingerprint_cases([Case("x", "X", refs)], cache=tmp_path / "cache", workers=0)
    assert [image.content for image in again.images.values()] == contents


def test_several_processes_find_the_same_in_the_same_order(tmp_path: Path):
    for number in range(4):
        brats_case(tmp_path, number)
    cases = open_dataset(tmp_path).cases
    alone, together = (fingerprint_cases(cases, workers=workers)[0] for workers in (0, 2))
    assert [one.case for one in together] == [case.id for case in cases]
    for one, other in zip(alone, together, strict=True):
        assert {n: i.content for n, i in one.images.items()} == {
            n: i.content for n, i in other.images.items()
        }


@pytest.mark.real_data
@pytest.mark.parametrize(("folder", "step"), [("lgg", 8), ("lidc_slices", 12), ("brats_layout", 1)])
def test_real_patients_do_not_look_the_same_but_a_copy_does(shared_data: Path, folder: str, step: int):
    if not (shared_data / folder).is_dir():
        pytest.skip(f"no {folder} among the real data")
    cases = open_dataset(shared_data / folder).cases[::step]
    entries, problems = fingerprint_cases(cases, workers=0)
    assert problems == []
    middle = entries[len(entries) // 2].patient
    train = [one for one in entries if one.patient < middle]
    test = [one for one in entries if one.patient >= middle]
    assert find_leaks({"train": train, "test": test}) == []
    name, ref = next(iter(cases[0].images.items()))
    voxels = read(ref).array[0].astype(np.float32)
    copy = zoom(np.sqrt(voxels - voxels.min() + 10), (0.8, 0.8, 1), order=1)[:, ::-1]
    known = entry("copy", "unknown", FLAIR=fingerprint(copy))
    (leak,) = find_leaks({"train": train, "test": [*test, known]})
    assert leak[:5] == ("similar-image", "train", cases[0].id, "test", "copy")
    assert f"({name} as FLAIR)" in leak.message or name == "FLAIR"


def cases_of_files(folder: Path, pattern: str, patient: Callable[[Path], str]) -> list[Case]:
    """Cases of single NIfTI images that lie in no known layout."""
    files = sorted(path for path in folder.rglob(pattern) if "mask" not in str(path.relative_to(folder)))
    return [Case(path.name, patient(path), {path.name: ImageRef((path,))}) for path in files]


@pytest.mark.slow
@pytest.mark.real_data
def test_no_channel_of_a_real_patient_looks_like_any_of_another_patient(shared_data: Path):
    known = [open_dataset(shared_data / name).cases for name in ("lgg", "lidc_slices", "brats_layout")]
    cases = [
        *(case for cases in known for case in cases),
        *cases_of_files(shared_data / "lidc_nodule_volumes", "*.nii.gz", lambda path: path.name[:14]),
        *cases_of_files(shared_data / "sts_ct_mr", "*.nii.gz", lambda path: path.parent.name),
    ]
    entries, problems = fingerprint_cases(cases)
    assert problems == []
    assert sum(len(one.images) for one in entries) > 700
    assert [
        leak for leak in find_leaks({"all": entries, "again": entries}) if leak.kind != "same-patient"
    ] == []
