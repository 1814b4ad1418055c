"""NIfTI files as they really come: several volumes, conflicting forms, and damage of every kind."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz_nifti
from oncoseg import io
from oncoseg.errors import DataError
from oncoseg.io import ImageRef, checks, read, read_channels, read_grid, remarks, write_labels
from oncoseg.io.nifti import NiftiSlabs, open_slabs

AFFINE = np.array([[-0.9, 0, 0, 90], [0, 0.1, 2.5, -126], [0, 1.1, -0.2, 72], [0, 0, 0, 1]])

FOUR = np.arange(3 * 4 * 5 * 3, dtype=np.int16).reshape(3, 4, 5, 3)


def save(path: Path, array: np.ndarray = FOUR, affine: np.ndarray | None = AFFINE) -> Path:
    nib.Nifti1Image(array, affine).to_filename(path)
    return path


def patched(path: Path, **fields: object) -> Path:
    """Write numbers straight into the header of an uncompressed file."""
    data = bytearray(path.read_bytes())
    header = np.frombuffer(data, nib.Nifti1Header.template_dtype, 1)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(data)
    return path


# four dimensions


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_of_a_4d_file_is_a_channel(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name)
    for number in range(3):
        np.testing.assert_array_equal(read(ImageRef((path,), number)).array[0], FOUR[..., number])
    refs = {str(number): ImageRef((path,), number) for number in (2, 0)}
    np.testing.assert_array_equal(read_channels(refs).array, FOUR[..., [2, 0]].transpose(3, 0, 1, 2))
    assert io.voxel_bytes(refs["2"]) == 2 * 3 * 4 * 5
    with pytest.raises(DataError, match="4D and holds 3 volumes"):
        read(ImageRef((path,)))
    for number in (3, -1):
        with pytest.raises(DataError, match=f"holds 3 volume.* number {number}"):
            read(ImageRef((path,), number))


def test_a_4d_file_of_channels_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii.gz")
    opened: list[Path] = []
    original = NiftiSlabs.__init__

    def counted(self: NiftiSlabs, path: Path, *of: object) -> None:
        opened.append(path)
        original(self, path, *of)

    monkeypatch.setattr(NiftiSlabs, "__init__", counted)
    read_channels({str(number): ImageRef((path,), number) for number in range(3)})
    assert opened == [path]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_slabs_of_one_volume_hold_nothing_else(tmp_path: Path, name: str) -> None:
    with open_slabs(save(tmp_path / name), 1) as slabs:
        for axis, start, stop in [(2, 0, 2), (2, 3, 5), (2, 1, 2)]:
            np.testing.assert_array_equal(slabs.slab(axis, start, stop), FOUR[:, :, start:stop, 1])
        if name.endswith(".gz"):
            assert slabs._voxels is None
        np.testing.assert_array_equal(slabs.slab(0, 1, 3), FOUR[1:3, :, :, 1])


def test_volumes_along_the_fifth_axis_are_found_and_two_such_axes_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", FOUR[..., None, :])
    np.testing.assert_array_equal(read(ImageRef((path,), 2)).array[0], FOUR[..., 2])
    with pytest.raises(DataError, match="5 dimensions of size 3×4×5×3×2"):
        read(ImageRef((save(tmp_path / "b.nii", np.stack([FOUR, FOUR], -1)),), 0))


def test_a_mask_on_a_volume_of_a_4d_file_is_3d(tmp_path: Path) -> None:
    source = read(ImageRef((save(tmp_path / "a.nii.gz"),), 1))
    write_labels(tmp_path / "mask.nii.gz", (source.array[0] > 50).astype(np.uint8), source)
    assert nib.load(tmp_path / "mask.nii.gz").shape == (3, 4, 5)
    np.testing.assert_array_equal(
        nib.load(tmp_path / "mask.nii.gz").affine, nib.load(tmp_path / "a.nii.gz").affine
    )


# where the image lies


def test_conflicting_forms_are_remarked_and_the_sform_is_used(tmp_path: Path) -> None:
    image = nib.Nifti1Image(FOUR[..., 0], None)
    image.header.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    image.header.set_sform(np.diag([-2.0, 2, 2, 1]), 1)
    image.to_filename(tmp_path / "a.nii")
    ref = ImageRef((tmp_path / "a.nii",))
    # the corner at i = 2 lies at x = 4 and x = −4
    assert [text[:62] for text in remarks(ref)] == [
        "its sform and qform place the image up to 8 mm apart; the sfor"
    ]
    assert read(ref).affine_ras[0, 0] == -2


@pytest.mark.parametrize(("shift", "said"), [(0.9, 0), (1.1, 1)])
def test_forms_less_than_half_a_voxel_apart_agree(tmp_path: Path, shift: float, said: int) -> None:
    image = nib.Nifti1Image(FOUR[..., 0], None)
    image.header.set_qform(np.diag([2.0, 3, 2, 1]), 1)
    image.header.set_sform(np.diag([2.0, 3, 2, 1]) + shift * np.eye(4, k=3), 1)
    image.to_filename(tmp_path / "a.nii")
    assert len(remarks(ImageRef((tmp_path / "a.nii",)))) == said


def test_a_qform_that_is_no_rotation_is_passed_over(tmp_path: Path) -> None:
    path = patched(save(tmp_path / "a.nii", FOUR[..., 0]), quatern_b=7.0, qform_code=1, sform_code=1)
    assert remarks(ImageRef((path,))) == ("its qform is no rotation; the sform is used",)
    np.testing.assert_array_equal(read(ImageRef((path,))).affine_ras, AFFINE.astype(np.float32))
    patched(path, sform_code=0)
    with pytest.raises(DataError, match="damaged NIfTI header"):
        read(ImageRef((path,)))


def test_no_orientation_is_remarked(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", FOUR[..., 0], None)
    (text,) = remarks(ImageRef((path,)))
    assert "left and right are a guess" in text


def test_a_size_of_0_without_a_unit_is_no_size_though_the_sform_tells_the_axes(tmp_path: Path) -> None:
    path = patched(save(tmp_path / "a.nii", FOUR[..., 0]), pixdim=[1, 0, 0, 0, 0, 0, 0, 0], xyzt_units=0)
    volume = read(ImageRef((path,)))
    assert not volume.spacing_known
    np.testing.assert_array_equal(volume.affine_ras, AFFINE.astype(np.float32))
    assert read(ImageRef((patched(path, xyzt_units=2),))).spacing_known


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dim": [3, -3, 4, 5, 1, 1, 1, 1]}, "dimensions of size -3×4×5"),
        ({"dim": [0, 3, 4, 5, 1, 1, 1, 1]}, r"(?i)dimensions|damaged"),
        ({"dim": [7] + [32767] * 7}, "dimensions of size"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "more than it can hold"),
        ({"vox_offset": 1e9}, "more than it can hold"),
        ({"vox_offset": np.nan}, "damaged"),
        ({"vox_offset": np.inf}, "damaged"),
        ({"vox_offset": -400.0}, "damaged|more than"),
        ({"srow_x": np.nan}, "impossible place"),
        ({"srow_x": 1e30}, "impossible place"),
        ({"srow_x": [1e-9, 0, 0, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}, "impossible place"),
        ({"datatype": 128, "bitpix": 24}, "colour"),
        ({"datatype": 32, "bitpix": 64}, "complex64"),
        ({"datatype": 1536, "bitpix": 128}, "data code 1536|at most 64 bits"),
        ({"datatype": 1, "bitpix": 1}, "damaged"),
        ({"datatype": 77}, "damaged"),
        ({"scl_slope": 2.0, "scl_inter": np.nan}, "damaged"),
        ({"scl_slope": 3e38, "scl_inter": 0}, "numbers within|infinite"),
    ],
)  # fmt: skip
def test_impossible_headers_are_refused(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    path = patched(save(tmp_path / "a.nii", FOUR[..., 0] + 1), **{"sform_code": 1, "qform_code": 0} | fields)
    with pytest.raises(DataError, match=reason):
        read(ImageRef((path,)))
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=reason):
        read(ImageRef((packed,)))


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_is_none_means_no_scaling(tmp_path: Path, slope: float) -> None:
    path = patched(save(tmp_path / "a.nii", FOUR[..., 0]), scl_slope=slope, scl_inter=5)
    np.testing.assert_array_equal(read(ImageRef((path,))).array[0], FOUR[..., 0])


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64", "uint64", "float64"])
def test_every_real_number_type_is_read(tmp_path: Path, dtype: str) -> None:
    nib.Nifti1Image(FOUR[..., 0].astype(dtype), AFFINE, dtype=dtype).to_filename(tmp_path / "a.nii")
    volume = read(ImageRef((tmp_path / "a.nii",)))
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array[0], FOUR[..., 0].astype(dtype))


def test_extensions_may_lie_about_their_size(tmp_path: Path) -> None:
    image = nib.Nifti1Image(FOUR[..., 0], AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"Jane Doe" * 3))
    image.to_filename(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[352:356] = struct.pack("<i", 2**31 - 1)
    (tmp_path / "a.nii").write_bytes(data)
    volume = read(ImageRef((tmp_path / "a.nii",)))
    np.testing.assert_array_equal(volume.array[0], FOUR[..., 0])
    assert not volume.header.extensions


# memory


def test_a_header_that_asks_for_more_memory_than_is_free_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((700, 700, 700))  # 343 million voxels of a byte
    header.set_data_dtype(np.uint8)
    noise = np.random.default_rng(0).bytes(400_000)  # of which 400 MB could have been packed
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4) + noise))
    monkeypatch.setattr(checks, "free_memory_gib", lambda: 0.3)
    with pytest.raises(DataError, match=r"needs 0\.3 GiB of memory, more than is free"):
        read(ImageRef((tmp_path / "a.nii.gz",)))
    assert read_grid(ImageRef((tmp_path / "a.nii.gz",))).grid == (700, 700, 700)
    monkeypatch.setattr(checks, "free_memory_gib", lambda: 9.0)
    with pytest.raises(DataError, match="ends before its last voxel"):
        read(ImageRef((tmp_path / "a.nii.gz",)))


# damage


def test_every_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    results = [fuzz_nifti.check(fuzz_nifti.make_file(tmp_path, seed)) for seed in range(300)]
    assert results.count("read") > 50
    assert results.count("refused") > 100


@given(data=st.binary(max_size=700), name=st.sampled_from(["a.nii", "a.nii.gz"]), header=st.booleans())
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str, header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    content = nib.Nifti1Header().binaryblock[:40] + data if header else data
    path.write_bytes(gzip.compress(content) if header and name.endswith(".gz") else content)
    assert fuzz_nifti.check(path) in {"read", "refused"}


def test_the_fuzzer_would_find_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", FOUR[..., 0])
    assert fuzz_nifti.check(path) == "read"
    monkeypatch.setattr(fuzz_nifti, "read", lambda ref: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_nifti.check(path)
    monkeypatch.setattr(fuzz_nifti, "read", lambda ref: read(ref).with_array(np.full((1, 3, 4, 5), np.nan)))
    with pytest.raises(AssertionError):
        fuzz_nifti.check(path)
