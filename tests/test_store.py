"""The prepared store's files: what is written is read again, slice by slice."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from oncoseg import store as stores
from oncoseg.errors import DataError, RunError
from oncoseg.files import atomic_folder, sha256_of_json
from oncoseg.store import FileHashes, PreparedCase, SliceWriter, is_whole
from test_files import largest_file

HALF = 2**-11
"""Relative rounding of float16."""


def written(
    folder: Path, slices: int = 7, size: tuple[int, int] = (6, 4)
) -> tuple[torch.Tensor, torch.Tensor]:
    folder.mkdir()
    images = torch.rand(slices, 2, *size, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(slices, *size, dtype=torch.uint8)
    masks[1, 2] = 1
    masks[5, :, 0] = 3
    writer = SliceWriter(folder, slices, 2, size)
    writer.append(images[:4], masks[:4])
    writer.append(images[4:], masks[4:])
    writer.finish(channels=["T1", "T2"], source_grid=[6, 4, slices])
    return images, masks


def test_slices_come_back_in_any_piece_and_channel_order(tmp_path: Path) -> None:
    images, masks = written(tmp_path / "case")
    case = PreparedCase("a", "A", tmp_path / "case", (1, 0, 0))
    assert len(case) == 7
    assert case.tumour_pixels.tolist() == [0, 4, 0, 0, 0, 6, 0]
    assert case.description["channels"] == ["T1", "T2"]
    for start, stop in [(0, 7), (3, 4), (5, 7), (4, 40)]:
        read, truth = case.read(start, stop)
        assert read.dtype == torch.float32
        assert truth.dtype == torch.uint8
        torch.testing.assert_close(read, images[start:stop, [1, 0, 0]], rtol=HALF, atol=1e-7)
        assert torch.equal(truth, masks[start:stop])


def test_slices_are_known_by_their_classes(tmp_path: Path) -> None:
    written(tmp_path / "case")
    case = PreparedCase("a", "A", tmp_path / "case", (0, 1))
    older = PreparedCase("a", "A", tmp_path / "case", (0, 1))
    older.__dict__["description"] = {k: v for k, v in case.description.items() if k != "classes"}
    for one in (case, older):
        assert np.flatnonzero(one.slices_with(None)).tolist() == [1, 5]
        assert np.flatnonzero(one.slices_with(1)).tolist() == [1]
        assert np.flatnonzero(one.slices_with(3)).tolist() == [5]
        assert not one.slices_with(2).any()


def test_0_and_1_are_exact(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    writer = SliceWriter(tmp_path / "case", 1, 1, (1, 2))
    writer.append(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[0, 255]]]))
    writer.finish()
    images, masks = PreparedCase("a", "A", tmp_path / "case", (0,)).read(0, 1)
    assert images.flatten().tolist() == [0, 1]
    assert masks.flatten().tolist() == [0, 255]


def test_a_slice_is_a_chunk_of_its_own(tmp_path: Path) -> None:
    written(tmp_path / "case")
    array = stores.blosc2.open(str(tmp_path / "case" / stores.SLICES_FILE))
    assert array.chunks == (1, 3, 6, 4)
    assert array.dtype == np.float16


def test_too_few_slices_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    writer = SliceWriter(tmp_path / "case", 2, 1, (2, 2))
    writer.append(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(DataError, match="Expected 2 slices, got 1"):
        writer.finish()


@pytest.mark.parametrize("limit", [100, 3000, 60_000])
def test_a_full_disk_leaves_no_case(tmp_path: Path, limit: int) -> None:
    with (
        largest_file(limit),
        pytest.raises(RunError, match="Could not write a prepared case into"),
        atomic_folder(tmp_path / "case") as temporary,
    ):
        writer = SliceWriter(temporary, 8, 4, (64, 64))
        writer.append(torch.rand(8, 4, 64, 64), torch.zeros(8, 64, 64))
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_case_is_noticed_and_reading_it_says_what_to_do(tmp_path: Path) -> None:
    written(tmp_path / "case")
    slices, description = tmp_path / "case" / stores.SLICES_FILE, tmp_path / "case" / stores.DESCRIPTION_FILE
    assert is_whole(tmp_path / "case")
    slices.write_bytes(slices.read_bytes()[:-100])
    assert not is_whole(tmp_path / "case")
    with pytest.raises(RunError, match=r"case is damaged .*Delete that folder"):
        PreparedCase("a", "A", tmp_path / "case", (0,)).read(0, 7)
    described = json.loads(description.read_text())
    del described["bytes"]  # as the first versions wrote it
    description.write_text(json.dumps(described))
    assert is_whole(tmp_path / "case")
    slices.unlink()
    assert not is_whole(tmp_path / "case")
    with pytest.raises(RunError, match="is damaged"):
        PreparedCase("a", "A", tmp_path / "case", (0,)).read(0, 7)
    description.write_text("{")
    assert not is_whole(tmp_path / "case")


# hashes


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"abc")
    first = FileHashes(tmp_path)
    digest = first.of([path])
    first.save()
    hashed: list[Path] = []
    real = stores.sha256_of_file
    monkeypatch.setattr(stores, "sha256_of_file", lambda file: (hashed.append(file), real(file))[1])
    assert FileHashes(tmp_path).of([path, path]) == digest * 2
    assert hashed == []
    path.write_bytes(b"abcd")
    assert FileHashes(tmp_path).of([path]) != digest
    path.write_bytes(b"abc")
    os.utime(path, ns=(0, 5))
    assert FileHashes(tmp_path).of([path]) == digest
    assert hashed == [path, path]


def test_limit_a_change_that_keeps_size_and_time_is_not_seen(tmp_path: Path) -> None:
    """The price of not reading every file anew; as with make and rsync, --checksum aside."""
    path = tmp_path / "image"
    path.write_bytes(b"abc")
    os.utime(path, ns=(7, 7))
    hashes = FileHashes(tmp_path)
    before = hashes.of([path])
    path.write_bytes(b"xyz")
    assert hashes.of([path]) != before
    os.utime(path, ns=(7, 7))
    hashes = FileHashes(tmp_path)
    hashes._known[sha256_of_json(str(path))] = [3, 7, before[0]]
    assert hashes.of([path]) == before


@pytest.mark.parametrize("memory", [b"", b"{", b"\xff\xfe", b"[]", b'"text"', b'{"x": 1}', b"null"])
def test_a_damaged_memory_is_dropped(tmp_path: Path, memory: bytes) -> None:
    (tmp_path / stores.HASHES_FILE).write_bytes(memory)
    (tmp_path / "x").write_bytes(b"abc")
    hashes = FileHashes(tmp_path)
    assert hashes.of([tmp_path / "x"])[0].startswith("ba7816bf")
    hashes.save()
    known = json.loads((tmp_path / stores.HASHES_FILE).read_text())
    assert list(known) == [sha256_of_json(str(tmp_path / "x"))]


def test_no_path_is_kept_as_it_may_name_a_patient(tmp_path: Path) -> None:
    path = tmp_path / "PATIENT" / "x"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    memory = tmp_path / stores.HASHES_FILE
    memory.write_text(json.dumps({str(path): [3, 7, "as the first versions kept it"]}))
    hashes = FileHashes(tmp_path)
    hashes.of([path])
    hashes.save()
    assert "PATIENT" not in memory.read_text()
    assert FileHashes(tmp_path)._known == json.loads(memory.read_text()) != {}


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*nowhere: No such file"):
        FileHashes(tmp_path).of([tmp_path / "nowhere"])


def test_neighbours_come_as_channels_from_below_to_above(tmp_path: Path) -> None:
    images, masks = written(tmp_path / "case")
    plain = PreparedCase("a", "A", tmp_path / "case", (1, 0))
    case = replace(plain, neighbours=2)
    read, truth = case.read(0, 7)
    assert read.shape == (7, 10, 6, 4)
    assert torch.equal(truth, masks)
    for position in range(7):
        # slices −2, −1, 0, +1, +2, each with the channels T2, T1; the first and the last repeat
        around = [min(max(position + step, 0), 6) for step in (-2, -1, 0, 1, 2)]
        expected = torch.cat([images[one, [1, 0]] for one in around])
        torch.testing.assert_close(read[position], expected, rtol=HALF, atol=1e-7)
        one, mask = case.example(position)
        assert torch.equal(one[0], read[position])
        assert torch.equal(mask[0], masks[position])
    for start, stop in [(1, 3), (5, 9)]:
        assert torch.equal(case.read(start, stop)[0], read[start:stop])
    parts = [part for group in case.parts(3) for part in group]
    assert torch.equal(torch.cat([part.images for part in parts]), read)
    assert torch.equal(replace(plain, neighbours=0).read(2, 5)[0], plain.read(2, 5)[0])


def test_which_classes_have_voxels(tmp_path: Path) -> None:
    written(tmp_path / "case")
    case = PreparedCase("a", "A", tmp_path / "case", (0,))
    assert case.with_voxels({1, 2, 3}) == {1, 3}
    assert case.with_voxels([2]) == set()
