"""Masks in the formats that users ask for: the same voxels in each, and only where each makes sense."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset

from conformant import SAGITTAL, TURNED, write_enhanced, write_slices
from oncoseg import predict
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError
from oncoseg.inputs import Job
from oncoseg.io import ImageRef
from oncoseg.io.dicom.rtstruct import open_rtstruct
from oncoseg.io.dicom.seg import open_seg
from oncoseg.io.dicom.volumes import series_of
from outside import dicom_errors
from test_predict import bright, write_marked

EVERY = ("nifti", "seg", "rtstruct")


@pytest.fixture(params=["axial", "sagittal", "oblique", "multi-frame"])
def files(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A dark CT with a bright block off centre, and predictions that take it as their input."""
    folder, grid = tmp_path / "images", (24, 20, 16)
    if request.param == "multi-frame":
        files = [write_enhanced(folder, grid, edit=mark)]
    else:
        cosines = {"sagittal": SAGITTAL, "oblique": TURNED}
        turn = {"cosines": cosines[request.param]} if request.param in cosines else {}
        files = write_slices(folder, grid, edit=mark, **turn)
    case = Case("scan", "scan", {"CT": ImageRef(tuple(files))})
    monkeypatch.setattr(predict, "find_jobs", lambda *_: [Job(case, "ct")])
    return files


def mark(header: Dataset) -> None:
    """-1000 HU, and a block of 1000 HU."""
    pixels = np.full((header.Rows, header.Columns), 24, np.uint16)
    if 4 <= header.InstanceNumber <= 9:
        pixels[6:13, 4:11] = 2024
    header.PixelData = pixels.tobytes()


def test_every_format_holds_the_same_mask(files: list[Path], tmp_path: Path) -> None:
    written = bright().predict(files, tmp_path / "out", modality="ct", formats=EVERY)
    assert [path.name for path in written] == ["scan.nii.gz", "scan_seg.dcm", "scan_rtstruct.dcm"]
    series = series_of(files)
    image = nib.load(written[0])
    mask = np.asarray(image.dataobj)
    assert mask.sum() > 100
    assert np.abs(image.affine - series.affine_ras).max() < 1e-4
    for path, opened in ((written[1], open_seg(written[1])), (written[2], open_rtstruct(written[2]))):
        (structure,) = opened.structures
        assert structure.name == "tumour"
        np.testing.assert_array_equal(opened.draw(structure, series).inside, mask == 1)
        assert dicom_errors(path) == []
        assert b"weights_sha256=weights" in path.read_bytes()


def test_only_what_is_missing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_slices(tmp_path / "images", (24, 20, 16), edit=mark)
    case = Case("scan", "scan", {"CT": ImageRef(tuple(files))})
    monkeypatch.setattr(predict, "find_jobs", lambda *_: [Job(case, "ct")])
    (seg,) = bright().predict(files, tmp_path / "out", formats=["seg"])
    before = seg.read_bytes()
    again = bright()
    again.predict(files, tmp_path / "out", formats=["seg"])
    assert again.network.slices_seen == 0
    written = bright().predict(files, tmp_path / "out", formats=["nifti", "seg"])
    assert [path.name for path in written] == ["scan.nii.gz", "scan_seg.dcm"]
    # the same object, not another with UIDs of its own
    assert seg.read_bytes() == before


@pytest.mark.parametrize("name", ["seg", "rtstruct"])
def test_dicom_is_for_dicom_images(tmp_path: Path, name: str) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    predictor = bright()
    with pytest.raises(DataError, match=f"written as {name} for DICOM images only"):
        predictor.predict([tmp_path / "a.nii"], tmp_path / "out", modality="ct", formats=["nifti", name])
    assert predictor.network.slices_seen == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]


def test_an_unknown_format_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    with pytest.raises(DataError, match="Unknown format 'rtstuct' of masks; did you mean 'rtstruct'"):
        bright().predict([tmp_path / "a.nii"], tmp_path / "out", modality="ct", formats=["rtstuct"])
    assert not (tmp_path / "out").exists()
