"""Reading and writing: files written by nibabel and Pillow are the independent references."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oncoseg.errors import DataError, GeometryError
from oncoseg.files import TEMPORARY_MARK
from oncoseg.io import ImageRef, read, read_channels, write_labels, write_scalars
from oncoseg.io.checks import NonFiniteError
from oncoseg.io.nifti import open_slabs
from oncoseg.volume import AFFINE_TOLERANCE_MM, Volume
from test_volume import affines, grids

AFFINE = np.array([[-0.9, 0, 0, 90], [0, 0.1, 2.5, -126], [0, 1.1, -0.2, 72], [0, 0, 0, 1]])

WRITTEN_AFFINE_TOLERANCE = 1e-6
"""What writing a result back promises about its affine."""

VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> Path:
    kind(array, affine).to_filename(path)
    return path


def volume_of(path: Path) -> Volume:
    return read(ImageRef((path,)))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_is_read_as_nibabel_does(tmp_path: Path, name: str, dtype: str, kind: type) -> None:
    image = kind(VALUES.astype(dtype), AFFINE)
    path = tmp_path / name.lower()
    image.to_filename(path)
    volume = volume_of(path.rename(tmp_path / name))
    assert volume.array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.array[0], VALUES)
    np.testing.assert_array_equal(
        volume.affine_ras, nib.load(path if path.exists() else tmp_path / name).affine
    )
    assert volume.spacing_known


def test_scaling_of_the_header_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.header.set_slope_inter(0.5, -1000)
    image.to_filename(tmp_path / "a.nii.gz")
    stored = nib.load(tmp_path / "a.nii.gz")
    volume = volume_of(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array[0], stored.get_fdata(), rtol=1e-6)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.Nifti1Image(VALUES, AFFINE, header).to_filename(tmp_path / "a.nii")
    volume = volume_of(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array[0], VALUES)
    write_labels(tmp_path / "mask.nii", np.zeros(volume.grid, np.uint8), volume)
    np.testing.assert_array_equal(volume_of(tmp_path / "mask.nii").affine_ras, volume.affine_ras)


def test_sform_goes_before_qform_and_qform_before_nothing(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VALUES, None)
    image.header.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    image.to_filename(tmp_path / "q.nii")
    assert volume_of(tmp_path / "q.nii").spacing_mm == (2, 2, 2)
    image.header.set_sform(np.diag([3.0, 3, 3, 1]), code=2)
    image.to_filename(tmp_path / "s.nii")
    assert volume_of(tmp_path / "s.nii").spacing_mm == (3, 3, 3)


def test_lengths_in_metres_become_millimetres_and_are_kept_in_the_result(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VALUES, np.diag([0.002, 0.002, 0.005, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "a.nii")
    volume = volume_of(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing_mm, (2, 2, 5), rtol=1e-6)
    write_labels(tmp_path / "mask.nii", np.zeros(volume.grid, np.uint8), volume)
    assert nib.load(tmp_path / "mask.nii").header.get_xyzt_units()[0] == "meter"
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii").affine, image.affine.astype("f4"))


def test_no_voxel_size_in_the_header_is_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VALUES, None)
    image.to_filename(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[80:92] = bytes(12)  # pixdim[1:4]
    data[252:256] = bytes(4)  # qform_code, sform_code
    (tmp_path / "a.nii").write_bytes(data)
    assert not volume_of(tmp_path / "a.nii").spacing_known


def test_four_dimensions_with_one_volume_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(volume_of(save(tmp_path / "a.nii", VALUES[..., None])).array[0], VALUES)


def test_two_dimensions_are_one_slice(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(VALUES[..., 2], np.diag([0.5, 0.7, 3.0, 1.0])), path)
    assert nib.load(path).shape == (4, 5)
    source = volume_of(path)
    np.testing.assert_array_equal(source.array[0, ..., 0], VALUES[..., 2])
    assert source.array.shape == (1, 4, 5, 1)
    assert source.spacing_known
    np.testing.assert_allclose(source.spacing_mm, (0.5, 0.7, 3.0), rtol=1e-6)
    write_labels(tmp_path / "mask.nii", np.ones((4, 5, 1), np.uint8), source)
    assert nib.load(tmp_path / "mask.nii").shape == (4, 5, 1)
    np.testing.assert_allclose(volume_of(tmp_path / "mask.nii").affine_ras, source.affine_ras)


def test_a_result_keeps_a_fourth_axis_of_one(tmp_path: Path) -> None:
    source = volume_of(save(tmp_path / "a.nii", VALUES[..., None]))
    write_labels(tmp_path / "mask.nii", (VALUES > 60).astype(np.uint8), source)
    assert nib.load(tmp_path / "mask.nii").shape == (4, 5, 6, 1)
    np.testing.assert_array_equal(volume_of(tmp_path / "mask.nii").array[0], VALUES > 60)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(6), "1 dimensions of size 6; expected a 2D or 3D image"),
        (np.zeros((2, 3, 4, 2)), "4D and holds 2 volumes"),
        (np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour"),
        (np.zeros((2, 3, 4), np.complex64), "complex"),
        (np.full((2, 3, 4), np.nan, np.float32), "24 voxel.* NaN or infinite"),
        (np.full((2, 3, 4), np.inf), "NaN or infinite"),
        (np.full((2, 3, 4), -1e39), r"voxels from -1e\+39 to .*within ±1e\+38"),
        (np.linspace(0, 2e38, 24, dtype=np.float32).reshape(2, 3, 4), r"voxels from 0 to 2e\+38"),
    ],
)
def test_unfit_voxels_are_refused(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        volume_of(save(tmp_path / "a.nii.gz", array))


def cut(keep: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * keep)]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("damage", [cut(0), cut(0.01), cut(0.3), cut(0.9), lambda data: data[:-1]])
def test_truncated_files_are_refused(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (8, 8, 8)).astype(np.int16)
    path = save(tmp_path / name, noise)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"truncated|empty|not a NIfTI"):
        volume_of(path)


def test_a_changed_byte_in_a_gzip_file_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", VALUES)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # the checksum
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        volume_of(path)


def test_a_header_that_asks_for_more_than_the_file_holds_takes_no_memory(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((32767, 32767, 32767))
    header.set_data_dtype(np.float64)
    for name, data in (("a.nii", header.binaryblock), ("a.nii.gz", gzip.compress(header.binaryblock))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="truncated"):
            volume_of(tmp_path / name)


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    plain = save(tmp_path / "a.nii", VALUES)
    with pytest.raises(DataError, match=r"not gzip-compressed; .* rename it to b\.nii"):
        volume_of(plain.rename(tmp_path / "b.nii.gz"))
    packed = save(tmp_path / "c.nii.gz", VALUES)
    with pytest.raises(DataError, match=r"rename it to d\.nii\.gz"):
        volume_of(packed.rename(tmp_path / "d.nii"))
    with pytest.raises(DataError, match="does not exist"):
        volume_of(tmp_path / "nowhere.nii")
    with pytest.raises(DataError, match="suffix"):
        volume_of(tmp_path / "a.jpg")
    (tmp_path / "text.nii").write_text("this is no image " * 100)
    with pytest.raises(DataError, match="not a NIfTI"):
        volume_of(tmp_path / "text.nii")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(DataError, match="is no regular file, but a folder"):
        volume_of(tmp_path / "folder.nii")


def test_a_singular_affine_names_the_file(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VALUES, None)
    image.header["sform_code"] = 1
    image.to_filename(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    data[254:256] = (1).to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(GeometryError, match=r"a\.nii.*singular"):
        volume_of(tmp_path / "a.nii")


# slabs


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("slope", [1, 0.25])
def test_slabs_equal_the_whole(tmp_path: Path, name: str, slope: float) -> None:
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / name)
    whole = volume_of(tmp_path / name)
    with open_slabs(tmp_path / name) as slabs:
        assert (slabs.grid, slabs.dtype) == (whole.grid, whole.array.dtype)
        np.testing.assert_array_equal(slabs.like.affine_ras, whole.affine_ras)
        assert (slabs.like.grid, slabs.like.spacing_mm) == (whole.grid, whole.spacing_mm)
        # forwards, a step back, a gap, and then along the other axes
        for axis, start, stop in [
            (2, 0, 2),
            (2, 2, 5),
            (2, 0, 1),
            (2, 4, 6),
            (0, 1, 3),
            (1, 4, 5),
            (2, 1, 2),
        ]:
            part = [slice(None)] * 3
            part[axis] = slice(start, stop)
            np.testing.assert_array_equal(slabs.slab(axis, start, stop), whole.array[0][tuple(part)])


def test_slabs_of_gzip_keep_nothing_along_the_last_axis(tmp_path: Path) -> None:
    with open_slabs(save(tmp_path / "a.nii.gz", VALUES)) as slabs:
        for k in range(slabs.grid[2]):
            slabs.slab(2, k, k + 1)
        assert slabs._voxels is None


def test_slabs_outside_the_grid_and_broken_ones(tmp_path: Path) -> None:
    array = np.zeros((2, 2, 4), np.float32)
    array[..., 3] = np.nan
    with open_slabs(save(tmp_path / "a.nii.gz", array)) as slabs:
        with pytest.raises(IndexError):
            slabs.slab(2, 3, 5)
        assert slabs.slab(2, 0, 3).shape == (2, 2, 3)
        with pytest.raises(NonFiniteError):
            slabs.slab(2, 3, 4)


# writing


def test_labels_go_back_onto_the_grid_of_the_source(tmp_path: Path) -> None:
    source = nib.Nifti1Image(VALUES, AFFINE)
    source.header.set_qform(np.diag([1.0, 2, 3, 1]), code=3)
    source.header.set_sform(AFFINE, code=4)
    source.header.set_xyzt_units("mm", "sec")
    source.header["descrip"] = b"Jane Doe"
    source.header["db_name"] = b"Jane Doe"
    source.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"Jane Doe"))
    source.to_filename(tmp_path / "a.nii.gz")
    volume = volume_of(tmp_path / "a.nii.gz")
    labels = (VALUES % 5).astype(np.uint8)
    write_labels(tmp_path / "out" / "mask.nii.gz", labels, volume)

    written = nib.load(tmp_path / "out" / "mask.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)
    np.testing.assert_allclose(written.affine, volume.affine_ras, atol=WRITTEN_AFFINE_TOLERANCE, rtol=0)
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (3, 4)
    np.testing.assert_array_equal(written.get_qform(), nib.load(tmp_path / "a.nii.gz").get_qform())
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert not written.header.extensions
    assert b"Jane" not in gzip.decompress((tmp_path / "out" / "mask.nii.gz").read_bytes())


def test_qform_alone_stays_alone(tmp_path: Path) -> None:
    source = nib.Nifti1Image(VALUES, None)
    source.header.set_qform(np.diag([-2.0, -2, 3, 1]), code=1)
    source.to_filename(tmp_path / "a.nii")
    write_labels(tmp_path / "mask.nii", np.zeros(VALUES.shape, np.uint8), volume_of(tmp_path / "a.nii"))
    written = nib.load(tmp_path / "mask.nii").header
    assert (int(written["qform_code"]), int(written["sform_code"])) == (1, 0)


@given(affine=affines, grid=grids)
@settings(max_examples=40, deadline=None)
def test_any_grid_survives_reading_and_writing(
    tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, grid: tuple[int, int, int]
) -> None:
    folder = tmp_path_factory.mktemp("grid")
    labels = np.arange(np.prod(grid), dtype=np.uint8).reshape(grid)
    source = volume_of(save(folder / "source.nii", labels, affine))
    write_labels(folder / "mask.nii.gz", labels, source)
    mask = volume_of(folder / "mask.nii.gz")
    np.testing.assert_array_equal(mask.array[0], labels)
    np.testing.assert_allclose(mask.affine_ras, source.affine_ras, atol=WRITTEN_AFFINE_TOLERANCE, rtol=0)


@given(affine=affines, scalars=st.booleans())
@settings(max_examples=20, deadline=None)
def test_grids_without_a_header_are_written_too(
    tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, scalars: bool
) -> None:
    path = tmp_path_factory.mktemp("fresh") / "a.nii"
    like = Volume(np.zeros((1, 2, 3, 4)), affine)
    if scalars:
        write_scalars(path, np.full((2, 3, 4), 0.25, np.float32), like)
    else:
        write_labels(path, np.full((2, 3, 4), 7, np.uint8), like)
    written = volume_of(path)
    assert np.unique(written.array) == (0.25 if scalars else 7)
    # NIfTI-1 stores float32
    np.testing.assert_allclose(written.affine_ras, affine, atol=AFFINE_TOLERANCE_MM, rtol=0)


def test_a_result_on_a_stack_of_images_claims_no_size_and_no_place(tmp_path: Path) -> None:
    like = Volume(np.zeros((1, 2, 3, 4)), np.diag([-1.0, -1, 1, 1]), spacing_known=False)
    write_labels(tmp_path / "a.nii", np.ones((2, 3, 4), np.uint8), like)
    header = nib.load(tmp_path / "a.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)
    assert header.get_xyzt_units()[0] == "unknown"
    assert header.get_data_shape() == (2, 3, 4)


def test_equal_results_are_equal_files(tmp_path: Path) -> None:
    like = Volume(np.zeros((1, *VALUES.shape)), AFFINE)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, VALUES.astype(np.uint8), like)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_wrong_results_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    like = Volume(np.zeros((1, *VALUES.shape)), AFFINE)
    with pytest.raises(DataError, match="uint8"):
        write_labels(tmp_path / "a.nii", VALUES, like)
    with pytest.raises(GeometryError, match="grid"):
        write_labels(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8), like)
    with pytest.raises(DataError, match="ends in"):
        write_labels(tmp_path / "a.png", np.zeros(VALUES.shape, np.uint8), like)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nib.Nifti1Header, "write_to", full)
    with pytest.raises(KeyboardInterrupt):
        write_labels(
            tmp_path / "a.nii", np.zeros(VALUES.shape, np.uint8), Volume(np.zeros((1, *VALUES.shape)), AFFINE)
        )
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(TEMPORARY_MARK)]


# stacks of 2D images


def stack(folder: Path, images: list[np.ndarray], suffix: str = ".png") -> ImageRef:
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number}{suffix}")
        compression = {"compression": "tiff_adobe_deflate"} if suffix == ".tif" else {}
        Image.fromarray(image).save(files[-1], **compression)
    return ImageRef(tuple(files))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_columns_run_left_and_rows_run_back(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((3, 5), np.uint8)
    image[2, 4] = 9  # last row, last column
    volume = read(stack(tmp_path, [image * 0, image], suffix))
    assert volume.array.shape == (1, 5, 3, 2)
    assert volume.array[0, 4, 2, 1] == 9
    assert volume.array.sum() == 9
    assert not volume.spacing_known
    np.testing.assert_array_equal(volume.affine_ras, np.diag([-1, -1, 1, 1]))
    assert nib.aff2axcodes(volume.affine_ras) == ("L", "P", "S")


def test_components_are_channels_and_files_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour = np.zeros((2, 2, 3), np.uint8) + np.array([1, 2, 3], np.uint8)
    files = stack(tmp_path, [colour, colour], ".tif").files
    opened: list[Path] = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: (opened.append(path), original(path))[1])
    volume = read_channels(
        {"T1": ImageRef(files, 0), "T1ce": ImageRef(files, 2), "FLAIR": ImageRef(files, 1)}
    )
    assert opened == list(files)
    np.testing.assert_array_equal(volume.array[:, 0, 0, 0], [1, 3, 2])


def test_a_difference_predictor_is_undone(tmp_path: Path) -> None:
    # a row of 1 2 3 4, stored as differences 1 1 1 1 (predictor 2)
    Image.fromarray(np.array([[1, 2, 3, 4]], np.uint8)).save(
        tmp_path / "a.tif", compression="tiff_adobe_deflate", tiffinfo={317: 2}
    )
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[317] == 2
    np.testing.assert_array_equal(read(ImageRef((tmp_path / "a.tif",))).array.ravel(), [1, 2, 3, 4])


def test_sixteen_bit_and_two_valued_images(tmp_path: Path) -> None:
    deep = read(stack(tmp_path, [np.array([[40000, 7]], np.uint16)]))
    assert deep.array.dtype == np.uint16
    assert deep.array[0, 0, 0, 0] == 40000
    flags = read(stack(tmp_path, [np.array([[True, False]])]))
    assert flags.array.dtype == np.uint8
    np.testing.assert_array_equal(flags.array.ravel(), [1, 0])


def test_colour_must_be_asked_for_and_grey_must_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="colour"):
        read(stack(tmp_path, [np.zeros((2, 2, 3), np.uint8)]))
    grey = stack(tmp_path, [np.zeros((2, 2), np.uint8)])
    with pytest.raises(DataError, match="component"):
        read(ImageRef(grey.files, 1))


def test_unfit_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"2×2.*3×2"):
        read(stack(tmp_path, [np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)]))
    with pytest.raises(DataError, match="does not exist"):
        read(ImageRef((tmp_path / "nowhere.png",)))
    with pytest.raises(DataError, match="mode RGBA"):
        read(stack(tmp_path, [np.zeros((2, 2, 4), np.uint8)]))
    with pytest.raises(NonFiniteError, match="1 voxel"):
        read(stack(tmp_path, [np.array([[np.nan, 1]], np.float32)], ".tif"))
    pages = [Image.fromarray(np.zeros((2, 2), np.uint8))] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"2 page\(s\)"):
        read(ImageRef((tmp_path / "pages.tif",)))
    with pytest.raises(DataError, match="at least one"):
        read(ImageRef(()))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about metadata
def test_truncated_images_are_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    ref = stack(tmp_path, [noise], suffix)
    ref.files[0].write_bytes(cut(keep)(ref.files[0].read_bytes()))
    with pytest.raises(DataError, match="no readable"):
        read(ref)


# channels


def test_channels_keep_the_order_and_must_share_a_grid(tmp_path: Path) -> None:
    paths = {name: save(tmp_path / f"{name}.nii", VALUES + n) for n, name in enumerate(("T2", "T1"))}
    volume = read_channels({name: ImageRef((path,)) for name, path in paths.items()})
    np.testing.assert_array_equal(volume.array[:, 0, 0, 0], [0, 1])
    moved = save(tmp_path / "moved.nii", VALUES, AFFINE + np.eye(4, k=3))
    with pytest.raises(GeometryError, match="T1 and T2"):
        read_channels({"T1": ImageRef((paths["T1"],)), "T2": ImageRef((moved,))})


@pytest.mark.real_data
def test_real_images_are_read_as_nibabel_reads_them(shared_data: Path) -> None:
    path = next((shared_data / "brats_layout").rglob("*_t1.nii.gz"), None)
    if path is None:
        pytest.skip("no BraTS case among the real data")
    image = nib.load(path)
    volume = volume_of(path)
    np.testing.assert_array_equal(volume.array[0], np.asanyarray(image.dataobj))
    np.testing.assert_array_equal(volume.affine_ras, image.affine)
