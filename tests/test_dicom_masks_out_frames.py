"""Masks of multi-frame images refer to their frames and files."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from conformant import TURNED, write_enhanced
from oncoseg.io.dicom.origin import LPS
from oncoseg.io.dicom.series import Series
from outside import dicom_errors
from test_dicom_masks_out import BOTH, awkward, read_back, the_series, write


@BOTH
def test_frames_of_a_multi_frame_file_are_referred_to(kind: str, tmp_path: Path) -> None:
    write_enhanced(tmp_path / "images", (14, 11, 6), cosines=TURNED)
    series = the_series(tmp_path / "images")
    # the file's frames run against the slices
    assert [each.frame for each in series.slices] == [5, 4, 3, 2, 1, 0]
    labels = awkward(series)
    file = write(kind, tmp_path / "mask.dcm", labels, series)
    np.testing.assert_array_equal(read_back(tmp_path / "mask.dcm", kind, series), labels)
    assert dicom_errors(tmp_path / "mask.dcm") == []
    if kind == "seg":
        groups = file.PerFrameFunctionalGroupsSequence
        places = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
        images = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    else:
        contours = [contour for roi in file.ROIContourSequence for contour in roi.ContourSequence]
        images = [contour.ContourImageSequence[0] for contour in contours]
        places = [plane_of(contour.ContourData, series) for contour in contours]
    by_frame = {each.frame: each.position_lps_mm for each in series.slices}
    for image, place in zip(images, places, strict=True):
        assert by_frame[image.ReferencedFrameNumber - 1] == pytest.approx(tuple(place), abs=1e-6)


@BOTH
def test_a_series_of_several_multi_frame_files_is_referred_to_file_by_file(kind: str, tmp_path: Path) -> None:
    write_enhanced(tmp_path / "images", (14, 11, 6), parts=2)
    series = the_series(tmp_path / "images")
    assert [each.frame for each in series.slices] == [2, 1, 0, 2, 1, 0]
    assert len(series.files) == 2
    labels = awkward(series)
    file = write(kind, tmp_path / "out" / "mask.dcm", labels, series)
    np.testing.assert_array_equal(read_back(tmp_path / "out" / "mask.dcm", kind, series), labels)
    assert dicom_errors(tmp_path / "out" / "mask.dcm") == []
    uids = [dcmread(path).SOPInstanceUID for path in series.files]
    if kind == "rtstruct":
        contours = [contour for roi in file.ROIContourSequence for contour in roi.ContourSequence]
        images = [contour.ContourImageSequence[0] for contour in contours]
        places = [plane_of(contour.ContourData, series) for contour in contours]
    else:
        listed = file.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert [item.ReferencedSOPInstanceUID for item in listed] == uids
        groups = file.PerFrameFunctionalGroupsSequence
        images = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
        places = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
    by_frame = {(each.sop_instance_uid, each.frame): each.position_lps_mm for each in series.slices}
    for image, place in zip(images, places, strict=True):
        frame = image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber - 1
        assert by_frame[frame] == pytest.approx(tuple(place), abs=1e-6)


def plane_of(numbers: list[float], series: Series) -> tuple[float, ...]:
    """Position of the slice in whose plane a contour lies."""
    normal = np.cross(*(LPS @ series.affine_ras[:3, axis] for axis in (0, 1)))
    distances = [
        abs((np.array(numbers[:3], float) - each.position_lps_mm) @ normal) for each in series.slices
    ]
    return series.slices[int(np.argmin(distances))].position_lps_mm
