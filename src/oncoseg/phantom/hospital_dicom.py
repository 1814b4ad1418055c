"""Synthetic brain MRI as a hospital's own DICOM: patients with a T1- or a T2-weighted series and contours.

As the data of S2: four of six patients T1-weighted, two T2-weighted, 0.84 × 0.84 × 2.00 mm at full size.
"""

from pathlib import Path

import numpy as np

from oncoseg import __version__
from oncoseg.io.dicom.origin import Algorithm
from oncoseg.io.dicom.rtstruct_writer import write_rtstruct
from oncoseg.io.dicom.survey import find_series
from oncoseg.phantom.brain_anatomy import FIELD_OF_VIEW_MM
from oncoseg.phantom.brain_mri import synthesise
from oncoseg.phantom.dicom_files import DATE, TIME, Scan, write_series
from oncoseg.phantom.folder import Progress, check_size, write_cases

NUMBERS = range(1, 1000)
"""Patients' numbers."""

DEFAULT_SIZE = (128, 128, 40)
"""Voxels of a case unless asked otherwise; 286×286×78 gives S2's voxel size."""

SEQUENCES = ("t1", "t1", "t2")
"""Sequence of the first, second and third patient, and so on in turn."""

WEIGHTING = {"t1": ("Ax T1 SE", 600.0, 12.0), "t2": ("Ax T2 TSE", 4200.0, 96.0)}
"""Sequence → SeriesDescription, repetition time and echo time in ms."""

STRUCTURE = "GTV"
"""Name of the structure that holds the whole tumour."""


def make_hospital_dicom(
    out: Path,
    cases: int,
    seed: int,
    progress: Progress | None = None,
    size: tuple[int, int, int] = DEFAULT_SIZE,
) -> None:
    """Write synthetic patients as `PATIENT-001/MR/1-001.dcm` and so on with `PATIENT-001/RTSTRUCT/1-1.dcm`.

    Args:
        out: a new or empty folder.
        cases: how many patients, 1 to 999; every third is T2-weighted.
        seed: 0 or more; equal seeds give equal files.
        progress: called with the number done and the number asked for.
        size: voxels along i, j, k; the field of view of 240×240×155 mm stays.

    Raises:
        RecipeError: a number is out of range.
        RunError: `out` is not empty or cannot be written.
    """
    check_size(size)

    def write_case(folder: Path, name: str, rng: np.random.Generator) -> None:
        number = NUMBERS.index(int(name.rpartition("-")[2]))
        images, labels = synthesise(rng, size)
        sequence = SEQUENCES[number % len(SEQUENCES)]
        _write_study(folder, name, images[sequence], labels > 0, sequence, seed)

    write_cases(out, "hospital-dicom", cases, seed, NUMBERS, "PATIENT-{:03}", write_case, progress)


def _write_study(
    folder: Path, name: str, voxels: np.ndarray, tumour: np.ndarray, sequence: str, seed: int
) -> None:
    description, repetition_ms, echo_ms = WEIGHTING[sequence]
    attributes = {"RepetitionTime": repetition_ms, "EchoTime": echo_ms, "BodyPartExamined": "BRAIN"}
    key = "hospital-dicom", name, str(seed)
    scan = Scan("MR", description, name, key, attributes=attributes)
    spacing = [extent / n for extent, n in zip(FIELD_OF_VIEW_MM, voxels.shape, strict=True)]
    origin = [(size - extent) / 2 for size, extent in zip(spacing, FIELD_OF_VIEW_MM, strict=True)]
    images = folder / "MR"
    images.mkdir()
    write_series(images, scan, voxels, spacing, origin)
    (series,) = find_series(images)
    path = folder / "RTSTRUCT" / "1-1.dcm"
    write_rtstruct(
        path, tumour.astype(np.uint8), series, {1: STRUCTURE}, Algorithm(__version__, name="oncoseg phantom")
    )
    _fix_identity(path, scan)


def _fix_identity(path: Path, scan: Scan) -> None:
    """Give contours the UIDs and the time of their seed, as they otherwise have those of the moment."""
    from pydicom import dcmread
    from pydicom.uid import UID

    file = dcmread(path)
    file.SOPInstanceUID = UID(scan.uid("contours"))
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.SeriesInstanceUID = scan.uid("series of contours")
    file.InstanceCreationDate = file.StructureSetDate = DATE
    file.InstanceCreationTime = file.StructureSetTime = TIME
    file.save_as(path)
