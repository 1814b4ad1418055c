"""Masks as other programs read them, in patient coordinates (LPS, mm) by those programs' own account."""

from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from pydicom import dcmread

from marker import Found
from outside import run


def by_simpleitk(path: Path, label: int = 1) -> Found:
    """NIfTI, NRRD or MetaImage."""
    return _of_image(sitk.ReadImage(str(path)), label)


def by_nibabel(path: Path, label: int = 1) -> Found:
    """NIfTI, whose own coordinates are RAS."""
    image = nib.load(path)
    places_ras = nib.affines.apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj) == label))
    return Found.of(places_ras * [-1, -1, 1])


def by_highdicom(path: Path) -> Found:
    """DICOM SEG, whose frames highdicom sorts into a volume."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True, rescale_fractional=False)
    return Found.of(volume.map_indices_to_reference(np.argwhere(volume.array == 1)))


def by_frames(path: Path) -> Found:
    """DICOM SEG, frame by frame with pydicom and the equation of PS3.3 C.7.6.2.1.1."""
    seg = dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    places = []
    for frame, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        places.append(
            position
            + columns[:, None] * between_columns * cosines[:3]
            + rows[:, None] * between_rows * cosines[3:]
        )
    return Found.of(np.concatenate(places))


def by_dcmqi(path: Path) -> Found:
    """DICOM SEG, converted by segimage2itkimage."""
    out = path.with_suffix(".dcmqi")
    out.mkdir()
    said = run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "-t", "nrrd")
    files = list(out.glob("*.nrrd"))
    assert len(files) == 1, said
    return by_simpleitk(files[0])


def by_contours(path: Path) -> Found:
    """RTSTRUCT, from its numbers alone: the centroid of what the contours enclose (slices evenly apart)."""
    (roi,) = dcmread(path).ROIContourSequence
    polygons = [np.array(each.ContourData, float).reshape(-1, 3) for each in roi.ContourSequence]
    weights, centroids = zip(*map(_area_and_centroid, polygons), strict=True)
    points = np.concatenate(polygons)
    return Found(
        np.average(centroids, axis=0, weights=weights), points.min(axis=0), points.max(axis=0), np.nan
    )


def by_plastimatch(path: Path, images: Path, name: str = "tumour") -> Found:
    """RTSTRUCT, drawn by plastimatch on the series that it refers to."""
    out = path.with_suffix(".plastimatch")
    said = run(
        *("plastimatch", "convert", "--input", path, "--referenced-ct", images),
        *("--output-prefix", out, "--prefix-format", "mha"),
    )
    assert (out / f"{name}.mha").is_file(), said
    return by_simpleitk(out / f"{name}.mha")


def _of_image(image: sitk.Image, label: int) -> Found:
    marked = np.argwhere(sitk.GetArrayViewFromImage(image) == label)[:, ::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return Found.of(np.array(image.GetOrigin()) + marked * image.GetSpacing() @ direction.T)


def _area_and_centroid(polygon: np.ndarray) -> tuple[float, np.ndarray]:
    """Of a plane polygon in space, as the sum of the triangles from its first point."""
    one, other = polygon[1:-1] - polygon[0], polygon[2:] - polygon[0]
    crosses = np.cross(one, other)
    total = crosses.sum(axis=0)
    signed = crosses @ total / np.linalg.norm(total) / 2
    middles = polygon[0] + (one + other) / 3
    return float(signed.sum()), signed @ middles / signed.sum()
