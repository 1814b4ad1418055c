"""NRRD and MetaImage: files written byte by byte here, or by SimpleITK, are the references."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from oncoseg.errors import DataError, GeometryError
from oncoseg.io import ImageRef, image_ref, read, read_channels, read_grid, voxel_bytes
from oncoseg.io.segments import Segment, list_segments
from oncoseg.volume import Volume

VALUES = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4, order="F")
"""Counts upwards along i, then j, then k, as the voxels lie in a file."""

FLAT = {
    "NDims": "2",
    "DimSize": "6 4",
    "Offset": "0 0",
    "ElementSpacing": "1 1",
    "TransformMatrix": "1 0 0 1",
}
"""Fields of a 2D MetaImage."""

LPS_LINES = (
    "space: left-posterior-superior\nspace directions: (2,0,0) (0,0,3) (0,-1,0)\nspace origin: (10,20,30)\n"
)
RAS_LINES = (
    "space: right-anterior-superior\nspace directions: (2,0,0) (0,0,3) (0,-1,0)\nspace origin: (10,20,30)\n"
)


def nrrd(path: Path, lines: str = LPS_LINES, *, values: np.ndarray = VALUES, packed: bool = False) -> Path:
    kinds = {"i2": "short", "u1": "unsigned char", "f4": "float"}
    voxels = values.tobytes(order="F")
    text = f"NRRD0005\ntype: {kinds[values.dtype.str[1:]]}\ndimension: {values.ndim}\nendian: little\n{lines}"
    text += f"sizes: {' '.join(map(str, values.shape))}\nencoding: {'gzip' if packed else 'raw'}\n\n"
    path.write_bytes(text.encode() + (gzip.compress(voxels) if packed else voxels))
    return path


def metaimage(path: Path, data: str = "LOCAL", **changes: str) -> Path:
    fields = {"ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False"}
    fields |= {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "10 20 30", "ElementSpacing": "2 3 4"}
    fields |= {"DimSize": "2 3 4", "ElementType": "MET_SHORT"} | changes | {"ElementDataFile": data}
    text = "".join(f"{name} = {value}\n" for name, value in fields.items())
    path.write_bytes(text.encode() + (VALUES.tobytes(order="F") if data == "LOCAL" else b""))
    return path


def volume_of(path: Path) -> Volume:
    return read(image_ref(path))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("lines", "sign"), [(LPS_LINES, -1), (RAS_LINES, 1)])
def test_a_nrrd_becomes_ras(tmp_path: Path, packed: bool, lines: str, sign: int) -> None:
    volume = volume_of(nrrd(tmp_path / "a.nrrd", lines, packed=packed))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array[0], VALUES)
    # i runs 2 mm along x, j 3 mm along z, k 1 mm against y
    expected = [[sign * 2, 0, 0, sign * 10], [0, 0, -sign, sign * 20], [0, 3, 0, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine_ras, expected, atol=1e-12)
    assert volume.spacing_known


def test_a_nrrd_without_space_and_sizes_has_no_known_spacing(tmp_path: Path) -> None:
    assert not volume_of(nrrd(tmp_path / "a.nrrd", "")).spacing_known
    sized = volume_of(nrrd(tmp_path / "b.nrrd", "spacings: 1 2 3\n"))
    assert (sized.spacing_known, sized.spacing_mm) == (True, (1, 2, 3))


def test_lengths_that_are_no_millimetres_are_refused(tmp_path: Path) -> None:
    lines = f'{LPS_LINES}space units: "um" "um" "um"\n'
    with pytest.raises(DataError, match="lengths in um; expected mm"):
        volume_of(nrrd(tmp_path / "a.nrrd", lines))
    assert volume_of(nrrd(tmp_path / "b.nrrd", lines.replace("um", "mm"))).spacing_known


def test_a_metaimage_is_read_whole_or_from_two_files(tmp_path: Path) -> None:
    whole = volume_of(metaimage(tmp_path / "a.mha"))
    np.testing.assert_array_equal(whole.array[0], VALUES)
    np.testing.assert_allclose(
        whole.affine_ras, [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
    )
    header = metaimage(tmp_path / "b.mhd", "b.raw")
    (tmp_path / "b.raw").write_bytes(VALUES.tobytes(order="F"))
    assert image_ref(header).files == (header, tmp_path / "b.raw")
    np.testing.assert_array_equal(volume_of(header).array, whole.array)


def test_a_nrrd_header_with_a_file_of_voxels(tmp_path: Path) -> None:
    header = nrrd(tmp_path / "a.nhdr", f"{LPS_LINES}data file: a.raw\n")
    (tmp_path / "a.raw").write_bytes(VALUES.tobytes(order="F"))
    assert [file.name for file in image_ref(header).files] == ["a.nhdr", "a.raw"]
    np.testing.assert_array_equal(volume_of(header).array[0], VALUES)


def test_voxels_are_looked_for_only_beside_their_header(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(VALUES.tobytes(order="F"))
    (tmp_path / "in").mkdir()
    for number, data in enumerate((str(tmp_path / "secret"), "../secret", "LIST", "a%d.raw 1 2 1")):
        with pytest.raises(DataError, match="expected one file beside"):
            volume_of(metaimage(tmp_path / "in" / f"{number}.mhd", data))
    with pytest.raises(DataError, match="expected one file beside"):
        volume_of(metaimage(tmp_path / "secret.mha", "secret"))
    with pytest.raises(DataError, match=r"lacks the file of its voxels, b\.raw"):
        volume_of(metaimage(tmp_path / "b.mhd", "b.raw"))


def test_volumes_and_components_are_channels(tmp_path: Path) -> None:
    four = np.stack([VALUES, VALUES + 100], axis=-1)
    path = tmp_path / "four.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(four.T, isVector=False), str(path))
    vector = tmp_path / "vector.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(four.transpose(2, 1, 0, 3), isVector=True), str(vector))
    for file in (path, vector):
        both = read_channels({"a": ImageRef((file,), 1), "b": ImageRef((file,), 0)})
        np.testing.assert_array_equal(both.array, [VALUES + 100, VALUES])
        assert read_grid(ImageRef((file,), 1)).array.shape == (1, *VALUES.shape)
        with pytest.raises(DataError, match="holds 2 volumes"):
            read(ImageRef((file,)))


def test_the_grid_is_known_without_the_voxels(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes()[:-20])
    grid = read_grid(ImageRef((path,)))
    assert (grid.grid, grid.array.dtype, voxel_bytes(ImageRef((path,)))) == ((2, 3, 4), np.int16, 48)
    with pytest.raises(DataError, match="truncated"):
        read(ImageRef((path,)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NDims": "4294967296"}, "number of dimensions"),
        ({"NDims": "-1"}, "number of dimensions"),
        ({"DimSize": "2 3"}, "size"),
        ({"DimSize": "2 3 -4"}, "size"),
        ({"DimSize": "2 3 99999999999"}, "size"),
        ({"TransformMatrix": "1 0 0"}, "transformmatrix"),
        ({"ElementNumberOfChannels": "100000"}, "number of channels"),
        ({"DimSize": "9000 9000 9000"}, "more than it can hold"),
        ({"ElementType": "MET_STRANGE"}, "no readable"),
        (FLAT, "2 dimensions"),
    ],
)  # fmt: skip
def test_impossible_headers_never_reach_the_library_that_would_crash(
    tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        volume_of(metaimage(tmp_path / "a.mha", **changes))


@pytest.mark.parametrize("content", [b"", b"this is no image\n" * 9, b"\n" * 2000, b"NRRD0005\n"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        volume_of(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        volume_of(tmp_path / "nowhere.mha")


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_analyze_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"does not tell left from right.*\.nii\.gz"):
        read(ImageRef((tmp_path / name,)))


def test_without_simpleitk_the_line_that_installs_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DataError, match=r'pip install "oncoseg\[formats\]"'):
        volume_of(nrrd(tmp_path / "a.nrrd"))


# segmentations of 3D Slicer

SEGMENTS = (
    "Segment0_Name:=liver\nSegment0_Layer:=0\nSegment0_LabelValue:=1\n"
    "Segment1_Name:=tumour\nSegment1_Layer:=1\nSegment1_LabelValue:=3\n"
    "Segment2_Name:=vessel of liver\nSegment2_Layer:=0\nSegment2_LabelValue:=2\n"
)


def segmentation(path: Path, origin: str = "(0,0,0)", lines: str = SEGMENTS) -> Path:
    """Two layers of 3×2×1 voxels: liver 1 and vessel 2 in the first, tumour 3 in the second."""
    layers = np.zeros((2, 3, 2, 1), np.uint8)
    layers[0, :, 0, 0] = 1
    layers[0, :, 1, 0] = 2
    layers[1, 1, 0, 0] = 3
    space = "space: left-posterior-superior\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n"
    space += f"space origin: {origin}\n"
    return nrrd(path, f"{space}kinds: list domain domain domain\n{lines}", values=layers)


def test_segments_are_listed_from_the_header(tmp_path: Path) -> None:
    assert list_segments(segmentation(tmp_path / "a.seg.nrrd")) == (
        Segment("liver", 0, 1),
        Segment("tumour", 1, 3),
        Segment("vessel of liver", 0, 2),
    )
    old = segmentation(tmp_path / "b.seg.nrrd", lines="Segment0_Name:=a\nSegment1_Name:=b\n")
    assert list_segments(old) == (Segment("a", 0, 1), Segment("b", 1, 1))
    with pytest.raises(DataError, match="lists no segments"):
        list_segments(nrrd(tmp_path / "c.seg.nrrd"))


def test_segments_get_the_labels_asked_for_and_the_later_one_is_kept(tmp_path: Path) -> None:
    path = segmentation(tmp_path / "a.seg.nrrd")
    labels = read(ImageRef((path,), structures=(("liver", 1), ("tumour", 2)))).array
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[0, :, :, 0], [[1, 0], [2, 0], [1, 0]])
    reverse = read(ImageRef((path,), structures=(("tumour", 2), ("liver", 1)))).array
    np.testing.assert_array_equal(reverse[0, :, :, 0], [[1, 0], [1, 0], [1, 0]])
    everything = read(ImageRef((path,))).array
    np.testing.assert_array_equal(everything[0, :, :, 0], [[1, 3], [2, 3], [1, 3]])
    with pytest.raises(DataError, match="no segment 'tumor'; did you mean 'tumour'"):
        read(ImageRef((path,), structures=(("tumor", 1),)))


def test_a_cut_segmentation_is_put_back_onto_the_grid_of_its_image(tmp_path: Path) -> None:
    space = LPS_LINES.replace("(2,0,0) (0,0,3) (0,-1,0)", "(1,0,0) (0,1,0) (0,0,1)")
    image = nrrd(tmp_path / "image.nrrd", space, values=np.zeros((6, 5, 4), np.int16))
    part = segmentation(tmp_path / "a.seg.nrrd", "(12,21,33)")
    whole = read(ImageRef((part,), grid_of=(image,), structures=(("liver", 1), ("tumour", 2))))
    expected = np.zeros((6, 5, 4))
    expected[2:5, 1, 3] = [1, 2, 1]
    np.testing.assert_array_equal(whole.array[0], expected)
    np.testing.assert_array_equal(whole.affine_ras, read_grid(ImageRef((image,))).affine_ras)
    for name, origin, reason in [
        ("b", "(12.5,21,33)", "does not lie on the grid"),
        ("c", "(15,21,33)", "outside of its image"),
        ("d", "(90,21,33)", "outside of its image"),
        ("e", "(-90,21,33)", "outside of its image"),
    ]:
        with pytest.raises(GeometryError, match=reason):
            read(ImageRef((segmentation(tmp_path / f"{name}.seg.nrrd", origin),), grid_of=(image,)))


@pytest.mark.real_data
def test_real_nrrd_masks_lie_on_their_images(shared_data: Path) -> None:
    folder = shared_data / "small_volumes" / "pyradiomics"
    if not folder.is_dir():
        pytest.skip("no NRRD among the real data")
    for name in ("brain1", "brain2", "breast1"):
        both = read_channels(
            {kind: ImageRef((folder / f"{name}_{kind}.nrrd",)) for kind in ("image", "label")}
        )
        image, mask = both.array
        assert set(np.unique(mask)) == {0, 1}
        assert image[mask > 0].mean() > image.mean()  # the tumours are bright
        np.testing.assert_array_equal(
            image, sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}_image.nrrd"))).T
        )
