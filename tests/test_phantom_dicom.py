"""Synthetic DICOM studies: what other programs read from them, and outlines as LIDC-IDRI keeps them."""

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from oncoseg.errors import RecipeError
from oncoseg.io.dicom.rtstruct import open_rtstruct
from oncoseg.io.dicom.survey import find_series
from oncoseg.io.dicom.voxels import read_series
from oncoseg.phantom import brain_mri, make_hospital_dicom, make_lung_ct_dicom
from oncoseg.phantom.dicom_files import Scan, write_series
from oncoseg.phantom.lidc_xml import Mark, trace, write_readings

needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed"
)
SPACE = {"n": "http://www.nih.gov"}


def enclosed(chain: list[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    """What lies strictly within a closed chain of pixels."""
    edge = np.zeros(shape, bool)
    edge[tuple(np.array(chain).T)] = True
    return ndimage.binary_fill_holes(edge) & ~edge


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chests") / "lidc"
    make_lung_ct_dicom(out, cases=1, seed=3)
    return out / "LIDC-IDRI-9000" / "CT"


def test_one_pixel_is_outlined_by_its_four_neighbours() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert trace(mask) == [[(1, 2), (2, 1), (3, 2), (2, 3), (1, 2)]]


def test_a_square_is_outlined_by_the_ring_around_it_and_two_parts_by_two_rings() -> None:
    mask = np.zeros((12, 6), bool)
    mask[2:4, 2:4] = True
    mask[8, 2] = True
    square, point = trace(mask)
    assert set(square) == {(1, 2), (1, 3), (2, 1), (3, 1), (4, 2), (4, 3), (2, 4), (3, 4)}
    assert len(point) == 5


def test_outlines_enclose_the_mask_with_its_holes_filled() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        smooth = ndimage.gaussian_filter(rng.standard_normal((40, 40)), rng.uniform(1.5, 4))
        mask = smooth > np.quantile(smooth, 0.93)
        mask[[0, 1, -2, -1]] = mask[:, [0, 1, -2, -1]] = False
        filled = ndimage.binary_fill_holes(mask)
        chains = trace(mask)
        for chain in chains:
            steps = np.abs(np.diff(np.array(chain), axis=0))
            assert chain[0] == chain[-1]
            assert (steps.max(axis=1) == 1).all(), "each pixel touches the next"
        joined = np.logical_or.reduce([enclosed(chain, mask.shape) for chain in chains])
        assert (joined | filled).sum() == joined.sum(), "nothing of the mask is lost"
        # narrow bays may be closed
        assert (joined != filled).sum() <= 0.05 * filled.sum()


def test_readings_hold_what_was_marked() -> None:
    mask = np.zeros((6, 6), bool)
    mask[2, 3] = True
    marks = [
        Mark("large", {1: mask}, {"malignancy": 4}),
        Mark("small", {0: mask}, {}),
        Mark("other", {1: mask}, {}, nodule=False),
    ]
    root = ElementTree.fromstring(write_readings([marks, []], ["1.2.0", "1.2.1"], [-7.5, -5.0], "1.2"))
    sessions = root.findall("n:readingSession", SPACE)
    assert len(sessions) == 2
    large, small = sessions[0].findall("n:unblindedReadNodule", SPACE)
    assert large.findtext("n:characteristics/n:malignancy", namespaces=SPACE) == "4"
    assert large.findtext("n:roi/n:imageSOP_UID", namespaces=SPACE) == "1.2.1"
    assert float(large.findtext("n:roi/n:imageZposition", namespaces=SPACE) or "nan") == -5.0
    assert len(large.findall("n:roi/n:edgeMap", SPACE)) == 5
    point = small.find("n:roi/n:edgeMap", SPACE)
    assert point is not None
    assert [child.text for child in point] == ["2", "3"], "x is the column i, y the row j"
    assert small.find("n:characteristics", SPACE) is None
    (other,) = sessions[0].findall("n:nonNodule", SPACE)
    assert other.findtext("n:locus/n:xCoord", namespaces=SPACE) == "2"
    assert not list(sessions[1].iter("{http://www.nih.gov}unblindedReadNodule"))


def test_a_series_lies_where_it_was_put(tmp_path: Path) -> None:
    """Read by SimpleITK: values, spacing, origin and directions."""
    sitk = pytest.importorskip("SimpleITK")
    voxels = np.random.default_rng(0).integers(-1000, 2000, (5, 4, 3)).astype(np.int16)
    scan = Scan("CT", "TEST", "P1", ("test",))
    uids = write_series(tmp_path, scan, voxels, (0.7, 0.9, 2.5), (-10.0, 20.5, -300.25))
    assert len(set(uids)) == 3
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(list(names))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), voxels)
    assert image.GetSpacing() == pytest.approx((0.7, 0.9, 2.5))
    assert image.GetOrigin() == pytest.approx((-10.0, 20.5, -300.25))
    assert image.GetDirection() == pytest.approx(np.eye(3).ravel())


def test_a_chest_is_one_series_of_a_patient_who_does_not_exist(chests: Path) -> None:
    files = sorted(chests.glob("*.dcm"))
    slices = [pydicom.dcmread(file) for file in files]
    assert len({image.SeriesInstanceUID for image in slices}) == 1
    assert len({image.SOPInstanceUID for image in slices}) == len(files)
    heights = [float(image.ImagePositionPatient[2]) for image in slices]
    assert np.diff(heights) == pytest.approx(2.5)
    assert {image.PatientID for image in slices} == {"LIDC-IDRI-9000"}
    hu = slices[len(slices) // 2].pixel_array.astype(int) - 1024
    assert np.quantile(hu, 0.02) == pytest.approx(-1000, abs=60)
    assert 0.1 < (hu > -200).mean() < 0.8


def test_every_outline_lies_on_a_slice_that_is_there(chests: Path) -> None:
    heights = {
        str(image.SOPInstanceUID): float(image.ImagePositionPatient[2])
        for image in (pydicom.dcmread(file, stop_before_pixels=True) for file in chests.glob("*.dcm"))
    }
    root = ElementTree.parse(chests / "readings.xml").getroot()
    rois = list(root.iter("{http://www.nih.gov}roi"))
    assert len(root.findall("n:readingSession", SPACE)) == 4
    assert len(rois) > 4
    for roi in rois:
        uid = roi.findtext("n:imageSOP_UID", namespaces=SPACE) or ""
        assert float(roi.findtext("n:imageZposition", namespaces=SPACE) or "nan") == pytest.approx(
            heights[uid], abs=1e-5
        )


def test_equal_seeds_give_equal_files(chests: Path, tmp_path: Path) -> None:
    make_lung_ct_dicom(tmp_path / "again", cases=1, seed=3)
    for file in chests.iterdir():
        again = tmp_path / "again" / "LIDC-IDRI-9000" / "CT" / file.name
        assert file.read_bytes() == again.read_bytes(), file.name


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed"
)
def test_slices_are_valid_dicom(chests: Path) -> None:
    done = subprocess.run(["dciodvfy", chests / "1-001.dcm"], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []
    assert "CTImage" in done.stderr


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital") / "patients"
    make_hospital_dicom(out, cases=3, seed=2, size=(48, 48, 24))
    return out


def test_a_hospital_has_two_patients_with_t1_for_each_with_t2(hospital: Path) -> None:
    found = [find_series(hospital / f"PATIENT-00{n}" / "MR") for n in (1, 2, 3)]
    assert [series[0].description for series in found] == ["Ax T1 SE", "Ax T1 SE", "Ax T2 TSE"]
    assert [series[0].grid for series in found] == [(48, 48, 24)] * 3


def test_a_seed_gives_the_same_files_of_a_hospital(hospital: Path, tmp_path: Path) -> None:
    make_hospital_dicom(tmp_path / "again", cases=1, seed=2, size=(48, 48, 24))
    files = sorted((tmp_path / "again" / "PATIENT-001").rglob("*.dcm"))
    assert len(files) == 24 + 1
    for file in files:
        assert file.read_bytes() == (hospital / file.relative_to(tmp_path / "again")).read_bytes()


def test_the_contours_of_a_hospital_are_the_tumours_of_the_brain_phantom(hospital: Path) -> None:
    (series,) = find_series(hospital / "PATIENT-001" / "MR")
    file = open_rtstruct(hospital / "PATIENT-001" / "RTSTRUCT" / "1-1.dcm")
    rng = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(0,)))
    images, labels = brain_mri.synthesise(rng, (48, 48, 24))
    (structure,) = file.structures
    assert structure.name == "GTV"
    np.testing.assert_array_equal(file.draw(structure, series).inside, labels > 0)
    np.testing.assert_array_equal(read_series(series).array[0], images["t1"])


def test_a_hospitals_case_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at least 16 voxels"):
        make_hospital_dicom(tmp_path / "out", cases=1, seed=0, size=(16, 16, 15))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed"
)
@pytest.mark.parametrize("file", ["MR/1-001.dcm", "RTSTRUCT/1-1.dcm"])
def test_a_hospitals_files_are_valid_dicom(hospital: Path, file: str) -> None:
    path = hospital / "PATIENT-001" / file
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []
