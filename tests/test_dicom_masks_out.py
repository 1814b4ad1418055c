"""DICOM SEG and RTSTRUCT written on a series, read back by several programs on the very same voxels."""

from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread

from conformant import AXIAL, SAGITTAL, TURNED, write_slices
from oncoseg.errors import DataError, GeometryError, RunError
from oncoseg.files import TEMPORARY_MARK
from oncoseg.io.dicom.codes import concept_of
from oncoseg.io.dicom.origin import LPS, Algorithm
from oncoseg.io.dicom.rtstruct import open_rtstruct
from oncoseg.io.dicom.rtstruct_writer import write_rtstruct
from oncoseg.io.dicom.seg import open_seg
from oncoseg.io.dicom.seg_writer import write_seg
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series
from outside import dicom_errors, run
from test_files import largest_file

SALT = b"0" * 32
NAMES = {1: "tumour", 2: "oedema"}
WEIGHTS = "5f" * 32
ALGORITHM = Algorithm("0.1.0", {"recipe": "unified-mri-ct", "weights_sha256": WEIGHTS})

Writer = Callable[[Path, np.ndarray, Series, dict[int, str], Algorithm], None]
WRITERS = {"seg": (write_seg, open_seg), "rtstruct": (write_rtstruct, open_rtstruct)}
BOTH = pytest.mark.parametrize("kind", WRITERS)
GEOMETRIES = {
    "axial": {"cosines": AXIAL},
    "sagittal": {"cosines": SAGITTAL},
    "oblique": {"cosines": TURNED},
    "tilted": {"cosines": AXIAL, "tilt_mm": 0.8},
}


@pytest.fixture(params=GEOMETRIES)
def series(tmp_path: Path, request: pytest.FixtureRequest) -> Series:
    write_slices(tmp_path / "images", (14, 11, 6), **GEOMETRIES[request.param])
    return the_series(tmp_path / "images")


@pytest.fixture
def axial(tmp_path: Path) -> Series:
    write_slices(tmp_path / "images", (14, 11, 6))
    return the_series(tmp_path / "images")


def the_series(folder: Path) -> Series:
    (found,) = find_series(folder, salt=SALT)
    return found


def awkward(series: Series) -> np.ndarray:
    """Corners of the grid, a hole with an island, two holes, pixels that touch at a corner, single pixels."""
    labels = np.zeros(series.grid, np.uint8)
    labels[0, 0, 0] = labels[-1, -1, -1] = labels[5, 5, 3] = 1
    labels[1:8, 2:9, 1] = 1
    labels[3:6, 4:7, 1] = 0
    labels[4, 5, 1] = 2
    labels[1:8, 2:9, 2] = 2
    labels[2, 3, 2] = labels[5, 3:6, 2] = 0
    labels[9, 2, 2] = labels[10, 3, 2] = labels[9, 4, 2] = 1
    labels[12, :, 4] = 2
    return labels


def read_back(path: Path, kind: str, series: Series, names: dict[int, str] = NAMES) -> np.ndarray:
    """With our own reader."""
    structures = WRITERS[kind][1](path)
    labels = np.zeros(series.grid, np.uint8)
    for value, name in names.items():
        (structure,) = structures.find(name)
        labels[structures.draw(structure, series).inside] = value
    return labels


def write(
    kind: str, path: Path, labels: np.ndarray, series: Series, names: dict[int, str] = NAMES
) -> Dataset:
    WRITERS[kind][0](path, labels, series, names, ALGORITHM)
    return dcmread(path)


# the same voxels


@BOTH
def test_our_readers_give_the_mask_back(kind: str, tmp_path: Path, series: Series) -> None:
    labels = awkward(series)
    write(kind, tmp_path / "mask.dcm", labels, series)
    np.testing.assert_array_equal(read_back(tmp_path / "mask.dcm", kind, series), labels)


@pytest.mark.parametrize("seed", range(5))
def test_noise_on_an_oblique_grid_of_odd_size(seed: int, tmp_path: Path) -> None:
    write_slices(tmp_path / "images", (31, 17, 3), cosines=TURNED, spacing_mm=(0.41, 0.97, 1.3))
    series = the_series(tmp_path / "images")
    labels = np.random.default_rng(seed).integers(0, 3, series.grid, np.uint8)
    write("rtstruct", tmp_path / "structures.dcm", labels, series)
    np.testing.assert_array_equal(read_back(tmp_path / "structures.dcm", "rtstruct", series), labels)
    write("seg", tmp_path / "seg.dcm", labels, series)
    np.testing.assert_array_equal(by_highdicom(tmp_path / "seg.dcm", series), labels)


@BOTH
def test_dciodvfy_finds_no_error(kind: str, tmp_path: Path, series: Series) -> None:
    assert dicom_errors(series.files[0]) == []
    write(kind, tmp_path / "mask.dcm", awkward(series), series)
    assert dicom_errors(tmp_path / "mask.dcm") == []


def test_highdicom_reads_a_segmentation_back(tmp_path: Path, series: Series) -> None:
    labels = awkward(series)
    write("seg", tmp_path / "mask.dcm", labels, series)
    np.testing.assert_array_equal(by_highdicom(tmp_path / "mask.dcm", series), labels)


def by_highdicom(path: Path, series: Series) -> np.ndarray:
    """What highdicom finds for each of the source's files."""
    uids = [each.sop_instance_uid for each in series.slices]
    planes = highdicom.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    return planes.transpose(2, 1, 0)


@pytest.mark.parametrize("geometry", ["axial", "sagittal", "oblique"])
def test_dcmqi_reads_a_segmentation_back(geometry: str, tmp_path: Path) -> None:
    write_slices(tmp_path / "images", (14, 11, 6), **GEOMETRIES[geometry])
    series = the_series(tmp_path / "images")
    labels = awkward(series)
    write_seg(tmp_path / "mask.dcm", labels, series, NAMES, ALGORITHM)
    np.testing.assert_array_equal(by_dcmqi(tmp_path / "mask.dcm", series), labels)


def by_dcmqi(path: Path, series: Series) -> np.ndarray:
    """What dcmqi reads, put onto the series' grid by the places that it gives."""
    out = path.with_suffix("")
    out.mkdir()
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "-t", "nii", "--mergeSegments")
    labels = np.zeros(series.grid, np.uint8)
    for file in out.glob("*.nii.gz"):
        image = nib.load(file)
        voxels = np.argwhere(np.asarray(image.dataobj))
        places = nib.affines.apply_affine(np.linalg.inv(series.affine_ras) @ image.affine, voxels)
        nearest = np.rint(places).astype(int)
        assert np.abs(places - nearest).max(initial=0) < 1e-3
        labels[tuple(nearest.T)] = np.asarray(image.dataobj)[tuple(voxels.T)]
    return labels


@pytest.mark.parametrize("geometry", ["axial"])
def test_plastimatch_reads_structures_back(geometry: str, tmp_path: Path) -> None:
    write_slices(tmp_path / "images", (14, 11, 6), **GEOMETRIES[geometry])
    series = the_series(tmp_path / "images")
    labels = awkward(series)
    write_rtstruct(tmp_path / "mask.dcm", labels, series, NAMES, ALGORITHM)
    for value, found in by_plastimatch(tmp_path / "mask.dcm", series, NAMES).items():
        np.testing.assert_array_equal(found, labels == value)


def by_plastimatch(path: Path, series: Series, names: dict[int, str]) -> dict[int, np.ndarray]:
    """What plastimatch draws on the series' grid."""
    grid = sitk.GetImageFromArray(np.zeros(series.grid[::-1], np.uint8))
    spacing = np.linalg.norm(series.affine_ras[:3, :3], axis=0)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin((LPS @ series.affine_ras[:3, 3]).tolist())
    grid.SetDirection((LPS @ series.affine_ras[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(grid, str(path.with_suffix(".mha")))
    out = path.with_suffix("")
    fixed = ("--fixed", path.with_suffix(".mha"))
    run("plastimatch", "convert", "--input", path, "--output-prefix", out, "--prefix-format", "mha", *fixed)
    return {
        value: sitk.GetArrayFromImage(sitk.ReadImage(str(out / f"{name}.mha"))).transpose(2, 1, 0) > 0
        for value, name in names.items()
    }


# what the files say


@BOTH
def test_patient_study_and_frame_of_reference_are_the_sources(
    kind: str, tmp_path: Path, axial: Series
) -> None:
    file, source = write(kind, tmp_path / "mask.dcm", awkward(axial), axial), dcmread(axial.files[0])
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
        *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID"),
    ):
        assert file[keyword] == source[keyword]
    assert file.SeriesInstanceUID not in ("", source.SeriesInstanceUID)
    assert file.SOPInstanceUID != source.SOPInstanceUID
    assert file.SeriesNumber == 9007
    assert "Planted" not in str([element for element in file if element.tag.group not in (8, 16)])


@BOTH
def test_every_file_is_a_series_of_its_own(kind: str, tmp_path: Path, axial: Series) -> None:
    first, second = (write(kind, tmp_path / f"{n}.dcm", awkward(axial), axial) for n in range(2))
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_a_segmentation_says_what_marks_what(tmp_path: Path, axial: Series) -> None:
    names = {3: "whole tumour", 200: "Lung"}
    labels = np.where(awkward(axial) == 1, 3, 0).astype(np.uint8)
    labels[0, 5, 5] = 200
    seg = write("seg", tmp_path / "mask.dcm", labels, axial, names)
    np.testing.assert_array_equal(read_back(tmp_path / "mask.dcm", "seg", axial, names), labels)
    tumour, lung = seg.SegmentSequence
    assert [(each.SegmentNumber, each.SegmentLabel) for each in (tumour, lung)] == [
        (1, "whole tumour"),
        (2, "Lung"),
    ]
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert lung.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lung"
    assert tumour.SegmentAlgorithmType == "AUTOMATIC"
    made_by = tumour.SegmentationAlgorithmIdentificationSequence[0]
    assert (made_by.AlgorithmName, made_by.AlgorithmVersion) == ("oncoseg", "0.1.0")
    assert f"weights_sha256={WEIGHTS}" in made_by.AlgorithmParameters
    assert seg.ContentCreatorName == ""


def test_a_segmentation_refers_to_every_source_and_each_frame_to_its_own(
    tmp_path: Path, axial: Series
) -> None:
    seg = write("seg", tmp_path / "mask.dcm", awkward(axial), axial)
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == axial.uid
    uids = [each.sop_instance_uid for each in axial.slices]
    assert [each.ReferencedSOPInstanceUID for each in referenced.ReferencedInstanceSequence] == uids
    heights = {each.sop_instance_uid: each.position_lps_mm[2] for each in axial.slices}
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert heights[source] == group.PlanePositionSequence[0].ImagePositionPatient[2]


def test_structures_say_what_marks_what(tmp_path: Path, axial: Series) -> None:
    file = write("rtstruct", tmp_path / "mask.dcm", awkward(axial), axial)
    assert [each.ROIName for each in file.StructureSetROISequence] == ["tumour", "oedema"]
    assert [each.ROIGenerationAlgorithm for each in file.StructureSetROISequence] == ["AUTOMATIC"] * 2
    assert [each.RTROIInterpretedType for each in file.RTROIObservationsSequence] == ["GTV", ""]
    assert [each.ROIDisplayColor for each in file.ROIContourSequence] == [
        list(concept_of(name).colour_rgb) for name in NAMES.values()
    ]
    assert WEIGHTS in file.StructureSetDescription
    assert file.ApprovalStatus == "UNAPPROVED"
    frame = file.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == axial.frame_of_reference_uid
    study = frame.RTReferencedStudySequence[0]
    assert study.ReferencedSOPInstanceUID == axial.study_uid
    images = study.RTReferencedSeriesSequence[0].ContourImageSequence
    assert [each.ReferencedSOPInstanceUID for each in images] == [
        each.sop_instance_uid for each in axial.slices
    ]


def test_contours_lie_in_the_planes_of_their_images(tmp_path: Path, series: Series) -> None:
    file = write("rtstruct", tmp_path / "mask.dcm", awkward(series), series)
    images = {each.sop_instance_uid: each.position_lps_mm for each in series.slices}
    normal = np.cross(*(LPS @ series.affine_ras[:3, axis] for axis in (0, 1)))
    for contour in file.ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        place = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert np.abs((points - place) @ normal / np.linalg.norm(normal)).max() < 1e-3
        assert all(len(str(number)) <= 16 for number in contour.ContourData)


def test_a_single_voxel_is_a_square_of_its_size(tmp_path: Path, axial: Series) -> None:
    labels = np.zeros(axial.grid, np.uint8)
    labels[2, 3, 4] = 1
    file = write("rtstruct", tmp_path / "mask.dcm", labels, axial, {1: "tumour"})
    (contour,) = file.ROIContourSequence[0].ContourSequence
    # voxels of 0.75 × 1.25 × 3 mm, the first at (−20.5, 31.25, 104.125)
    assert contour.ContourData == [
        *(-19.375, 34.375, 116.125, -19.375, 35.625, 116.125),
        *(-18.625, 35.625, 116.125, -18.625, 34.375, 116.125),
    ]


@BOTH
def test_a_class_may_be_absent(kind: str, tmp_path: Path, axial: Series) -> None:
    labels = np.where(awkward(axial) == 2, 2, 0).astype(np.uint8)
    write(kind, tmp_path / "mask.dcm", labels, axial)
    assert dicom_errors(tmp_path / "mask.dcm") == []
    np.testing.assert_array_equal(read_back(tmp_path / "mask.dcm", kind, axial), labels)


def test_an_empty_mask_is_one_empty_frame_per_segment(tmp_path: Path, axial: Series) -> None:
    labels = np.zeros(axial.grid, np.uint8)
    seg = write("seg", tmp_path / "mask.dcm", labels, axial)
    assert seg.NumberOfFrames == 2
    assert not seg.pixel_array.any()
    assert dicom_errors(tmp_path / "mask.dcm") == []
    assert not read_back(tmp_path / "mask.dcm", "seg", axial).any()
    assert not by_dcmqi(tmp_path / "mask.dcm", axial).any()


def test_an_empty_mask_is_structures_without_contours(tmp_path: Path, axial: Series) -> None:
    file = write("rtstruct", tmp_path / "mask.dcm", np.zeros(axial.grid, np.uint8), axial)
    assert ["ContourSequence" in each for each in file.ROIContourSequence] == [False, False]
    assert dicom_errors(tmp_path / "mask.dcm") == []
    assert not read_back(tmp_path / "mask.dcm", "rtstruct", axial).any()


# odd sources


@BOTH
@pytest.mark.parametrize(
    ("character_set", "patient"),
    [("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう")],
)
@pytest.mark.parametrize("name", ["tumour", "Tumör 大"])
def test_names_of_any_script(kind: str, character_set: str, patient: str, name: str, tmp_path: Path) -> None:
    write_slices(tmp_path / "images", SpecificCharacterSet=character_set, PatientName=patient)
    series = the_series(tmp_path / "images")
    labels = np.ones(series.grid, np.uint8)
    file = write(kind, tmp_path / "mask.dcm", labels, series, {1: name})
    assert str(file.PatientName) == patient
    assert (
        file.SegmentSequence[0].SegmentLabel if kind == "seg" else file.StructureSetROISequence[0].ROIName
    ) == name
    assert dicom_errors(tmp_path / "mask.dcm") == []


@BOTH
def test_what_the_source_lacks_is_left_empty(kind: str, tmp_path: Path) -> None:
    missing = ("PatientBirthDate", "StudyID", "ReferringPhysicianName", "AccessionNumber", "StudyTime")
    changes = dict.fromkeys(missing) | {"PatientSex": "W", "PatientIdentityRemoved": "YES"}
    write_slices(tmp_path / "images", **changes)
    series = the_series(tmp_path / "images")
    file = write(kind, tmp_path / "mask.dcm", np.ones(series.grid, np.uint8), series)
    assert [file[keyword].value or "" for keyword in (*missing, "PatientSex")] == [""] * 6
    assert dicom_errors(tmp_path / "mask.dcm") == []


@BOTH
def test_a_patients_name_never_reaches_a_log(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    write_slices(tmp_path / "images", PatientName="Oddly named", StudyID="longer than sixteen letters")
    series = the_series(tmp_path / "images")
    with caplog.at_level("DEBUG"):
        write(kind, tmp_path / "mask.dcm", np.ones(series.grid, np.uint8), series)
    said = caplog.text + "".join(capfd.readouterr())
    assert "Oddly" not in said
    assert "longer than" not in said


@BOTH
def test_series_numbers_have_an_end(kind: str, tmp_path: Path) -> None:
    write_slices(tmp_path / "images", SeriesNumber=2**31 - 5)
    series = the_series(tmp_path / "images")
    file = write(kind, tmp_path / "mask.dcm", np.ones(series.grid, np.uint8), series)
    assert file.SeriesNumber == 2**31 - 1


# what is refused


@BOTH
def test_unfit_masks_are_refused_and_nothing_is_left(kind: str, tmp_path: Path, axial: Series) -> None:
    labels = awkward(axial)
    path = tmp_path / "out" / "mask.dcm"
    with pytest.raises(GeometryError, match=r"grid \(14, 11, 6\), got \(14, 11, 5\)"):
        write(kind, path, labels[..., 1:], axial)
    with pytest.raises(DataError, match="uint8"):
        write(kind, path, labels.astype(np.int16), axial)
    with pytest.raises(DataError, match=r"none for \[2\]"):
        write(kind, path, labels, axial, {1: "tumour"})
    for name in ("", "a\\b", "a" * 65, "a\nb"):
        with pytest.raises(DataError, match="does not fit into DICOM"):
            write(kind, path, labels, axial, {1: name, 2: "oedema"})
    assert not path.parent.exists()


@BOTH
def test_a_series_without_a_frame_of_reference_is_refused(kind: str, tmp_path: Path) -> None:
    write_slices(tmp_path / "images", FrameOfReferenceUID=None)
    series = the_series(tmp_path / "images")
    with pytest.raises(DataError, match="Write the mask as NIfTI"):
        write(kind, tmp_path / "mask.dcm", np.ones(series.grid, np.uint8), series)


@BOTH
def test_a_full_disk_leaves_nothing(kind: str, tmp_path: Path, axial: Series) -> None:
    with largest_file(2000), pytest.raises(RunError, match="Could not write"):
        write(kind, tmp_path / "out" / "mask.dcm", awkward(axial), axial)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(TEMPORARY_MARK)]


# real images


REAL = ("nsclc_rtstruct/LUNG1-001/image", "lidc_dicom_xml", "sts_ct_mr/dicom/STS_002")


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("folder", REAL)
def test_real_series(folder: str, shared_data: Path, tmp_path: Path) -> None:
    series = max(find_series(shared_data / folder, salt=SALT), key=lambda each: np.prod(each.grid))
    field = np.random.default_rng(0).normal(size=[-(-n // 24) for n in series.grid])
    labels = np.kron(np.digitize(field, [0.6, 1.2]), np.ones((24, 24, 24)))[tuple(map(slice, series.grid))]
    labels = np.asfortranarray(labels, np.uint8)
    own = dicom_errors(series.files[0])
    for kind in WRITERS:
        path = tmp_path / f"{kind}.dcm"
        write(kind, path, labels, series)
        # a source's own faults in what is taken over are taken over
        assert [error for error in dicom_errors(path) if error not in own] == []
    np.testing.assert_array_equal(by_highdicom(tmp_path / "seg.dcm", series), labels)
    np.testing.assert_array_equal(by_dcmqi(tmp_path / "seg.dcm", series), labels)
    np.testing.assert_array_equal(read_back(tmp_path / "rtstruct.dcm", "rtstruct", series), labels)
    for value, found in by_plastimatch(tmp_path / "rtstruct.dcm", series, NAMES).items():
        np.testing.assert_array_equal(found, labels == value)
