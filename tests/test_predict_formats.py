"""Masks in the formats that users ask for: the same voxels in each, and only where each makes sense."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from conformant import SAGITTAL, TURNED, write_enhanced, write_slices
from oncoseg.cli import main
from oncoseg.errors import DataError
from oncoseg.io.dicom.rtstruct import open_rtstruct
from oncoseg.io.dicom.seg import open_seg
from oncoseg.io.dicom.survey import find_series
from oncoseg.run_folder import RunFolder
from outside import dicom_errors
from test_predict import bright, write_marked

EVERY = ("nifti", "seg", "rtstruct")


@pytest.fixture(params=["axial", "sagittal", "oblique", "multi-frame"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A dark CT with a bright block off centre, in a folder that is called after its patient."""
    folder, grid = tmp_path / "PLANTED_NAME", (24, 20, 16)
    if request.param == "multi-frame":
        write_enhanced(folder, grid, edit=mark)
    else:
        cosines = {"sagittal": SAGITTAL, "oblique": TURNED}
        turn = {"cosines": cosines[request.param]} if request.param in cosines else {}
        write_slices(folder, grid, edit=mark, **turn)
    return folder


def mark(header: Dataset) -> None:
    """-1000 HU, and a block of 1000 HU."""
    pixels = np.full((header.Rows, header.Columns), 24, np.uint16)
    if 4 <= header.InstanceNumber <= 9:
        pixels[6:13, 4:11] = 2024
    header.PixelData = pixels.tobytes()


def test_every_format_holds_the_same_mask(folder: Path, tmp_path: Path) -> None:
    written = bright().predict([folder], tmp_path / "out", formats=EVERY)
    (series,) = find_series(folder)
    ends = (".nii.gz", "_seg.dcm", "_rtstruct.dcm")
    # a key in place of the patient, whatever the folder is called
    assert [path.name for path in written] == [f"P{series.patient}{end}" for end in ends]
    image = nib.load(written[0])
    mask = np.asarray(image.dataobj)
    assert mask.sum() > 100
    assert np.abs(image.affine - series.affine_ras).max() < 1e-4
    for path, opened in ((written[1], open_seg(written[1])), (written[2], open_rtstruct(written[2]))):
        (structure,) = opened.structures
        assert structure.name == "tumour"
        assert opened.series_uids == (series.uid,)
        np.testing.assert_array_equal(opened.draw(structure, series).inside, mask == 1)
        assert dicom_errors(path) == []
        assert b"weights_sha256=weights" in path.read_bytes()


def test_only_what_is_missing_is_written(tmp_path: Path) -> None:
    write_slices(tmp_path / "images", (24, 20, 16), edit=mark)
    (seg,) = bright().predict([tmp_path / "images"], tmp_path / "out", formats=["seg"])
    before = seg.read_bytes()
    again = bright()
    again.predict([tmp_path / "images"], tmp_path / "out", formats=["seg"])
    assert again.networks[0].slices_seen == 0
    nifti, kept = bright().predict([tmp_path / "images"], tmp_path / "out", formats=["nifti", "seg"])
    assert nifti.is_file()
    # the same object, not another with UIDs of its own
    assert kept.read_bytes() == before


@pytest.mark.parametrize("name", ["seg", "rtstruct"])
def test_dicom_is_for_dicom_images(tmp_path: Path, name: str) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    predictor = bright()
    with pytest.raises(DataError, match=f"written as {name} for DICOM images only"):
        predictor.predict([tmp_path / "a.nii"], tmp_path / "out", modality="ct", formats=["nifti", name])
    assert predictor.networks[0].slices_seen == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]


def test_an_unknown_format_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    write_marked(tmp_path / "a.nii", np.eye(4))
    with pytest.raises(DataError, match="Unknown format 'rtstuct' of masks; did you mean 'rtstruct'"):
        bright().predict([tmp_path / "a.nii"], tmp_path / "out", modality="ct", formats=["rtstuct"])
    assert not (tmp_path / "out").exists()


def test_a_trained_run_marks_a_folder_of_dicom(
    whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_slices(tmp_path / "PLANTED_NAME", (24, 20, 16), edit=mark)
    command = ["predict", str(whole.path), str(tmp_path / "PLANTED_NAME"), "--out", str(tmp_path / "out")]
    assert main([*command, "--format", "seg", "--format", "rtstruct"]) == 0
    printed = capsys.readouterr()
    seg, rtstruct = (Path(line) for line in printed.out.splitlines())
    assert (dcmread(seg).Modality, dcmread(rtstruct).Modality) == ("SEG", "RTSTRUCT")
    (series,) = find_series(tmp_path / "PLANTED_NAME")
    drawn = [
        opened.draw(opened.structures[0], series).inside
        for opened in (open_seg(seg), open_rtstruct(rtstruct))
    ]
    np.testing.assert_array_equal(*drawn)
    said = (printed.out + printed.err + (tmp_path / "out" / "prediction.json").read_text()).lower()
    assert "planted" not in said
    assert "input: ct by guess: its modality is ct (1 series" in said
