"""Reading a DICOM series of 512×512×600 voxels, beside SimpleITK, dicom2nifti and dcm2niix.

    python benchmarks/dicom_speed.py [--rounds 3] [--compressed] [--dicom2nifti PYTHON] [--quick]

The series is made up: CT of 16 bits with a header of some 130 elements per file, as scanners write, all files
in memory of the system (they are read once before). Each way has a process of its own, in turn; starting it
and importing are not timed, except for dcm2niix, which is a program. What each does:

- bytes: reads every file whole, one after the other; what no reader that needs all bytes can beat by much.
- oncoseg headers: `find_series`, from a folder to the geometry of its series.
- oncoseg: `find_series` and `read_series`, from a folder to Hounsfield units and an affine.
- oncoseg slabs: the same, 32 slices at a time and each given up again, for the memory that prediction needs.
- SimpleITK: `GetGDCMSeriesFileNames` and `ImageSeriesReader`, from a folder to an image.
- dicom2nifti: `dicom_series_to_nifti`, from a folder to a file, it has no other way; in a Python of its own.
- dcm2niix: from a folder to an uncompressed file, as it has no other way.

`--compressed` stores the slices as JPEG lossless, as hospitals do; python-gdcm makes it.
"""

import argparse
import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from _common import Child, print_hardware, print_table, run_python, scratch_folder, spread

FULL, QUICK = (512, 512, 600), (64, 64, 12)

SALT = b"only for this benchmark, no secret"


def make_series(folder: Path, grid: tuple[int, int, int], compressed: bool) -> Path:
    """Write a series of noise around water in a cylinder."""
    from pydicom import FileDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    columns, rows, slices = grid
    rng = np.random.default_rng(0)
    i, j = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows))
    body = np.where(i**2 + j**2 < 0.8, 1024, 24)
    names = [str(generate_uid(entropy_srcs=[name])) for name in ("study", "series", "frame of reference")]
    for k in range(slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(k)])
        dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        dataset.SOPClassUID = meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = names
        dataset.Modality, dataset.PatientID, dataset.SeriesNumber = "CT", "phantom", 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [-200, -200, k * 1.0]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.8], 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = rows, columns
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        block = dataset.private_block(0x0029, "SOME SCANNER", create=True)
        for number in range(100):
            block.add_new(number, "LO", f"a setting of the scanner: {number}")
        noisy = body + rng.normal(0, 12, body.shape)
        dataset.PixelData = np.clip(noisy, 0, 4095).astype("<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        file = folder / f"{k:04}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        if compressed:
            _compress(file)
    return folder


def _compress(file: Path) -> None:
    """Compress the pixels of a file and leave its header as it is."""
    import gdcm
    from pydicom import dcmread

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    change.Change()
    packed = file.with_suffix(".packed")
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()
    dataset, compressed = dcmread(file), dcmread(packed)
    packed.unlink()
    dataset["PixelData"] = compressed["PixelData"]
    dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
    dataset.save_as(file, enforce_file_format=True)


def read_bytes(folder: Path) -> None:
    """Read every file."""
    for file in sorted(folder.iterdir()):
        file.read_bytes()


def oncoseg_headers(folder: Path) -> None:
    """Find the series."""
    from oncoseg.io.dicom.survey import find_series

    (series,) = find_series(folder, salt=SALT)
    assert len(series.slices) == len(list(folder.iterdir()))


def oncoseg_whole(folder: Path) -> None:
    """Find and read the series."""
    from oncoseg.io.dicom.survey import find_series
    from oncoseg.io.dicom.voxels import read_series

    (series,) = find_series(folder, salt=SALT)
    assert read_series(series).array.dtype == np.int16


def oncoseg_slabs(folder: Path) -> None:
    """Find the series and read it 32 slices at a time."""
    from oncoseg.io.dicom.survey import find_series
    from oncoseg.io.dicom.voxels import open_series

    (series,) = find_series(folder, salt=SALT)
    with open_series(series) as slabs:
        for start in range(0, slabs.grid[2], 32):
            slabs.slab(2, start, min(start + 32, slabs.grid[2]))


def simpleitk(folder: Path) -> None:
    """Read the series."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    sitk.GetArrayViewFromImage(reader.Execute())


def dcm2niix(folder: Path) -> None:
    """Convert the series."""
    with tempfile.TemporaryDirectory() as out:
        command = ["dcm2niix", "-z", "n", "-b", "n", "-o", out, str(folder)]
        subprocess.run(command, check=True, capture_output=True)


DICOM2NIFTI = """
import json, os, sys, tempfile, time
from dicom2nifti.convert_dicom import dicom_series_to_nifti as convert
with tempfile.TemporaryDirectory() as out:
    started, worked = time.perf_counter(), time.process_time()
    convert(sys.argv[1], os.path.join(out, "a.nii"), reorient_nifti=False)
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    print(json.dumps({"seconds": seconds, "processor": processor}))
"""

FOREIGN = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
"""Runs a program as the only child of a process, so that its memory is measured like the others'."""

WAYS: dict[str, Callable[[Path], None]] = {
    "bytes": read_bytes,
    "oncoseg headers": oncoseg_headers,
    "oncoseg": oncoseg_whole,
    "oncoseg slabs": oncoseg_slabs,
    "SimpleITK": simpleitk,
    "dcm2niix": dcm2niix,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way has its turn")
    parser.add_argument("--compressed", action="store_true", help="store the slices as JPEG lossless")
    parser.add_argument("--dicom2nifti", type=Path, help="a Python with dicom2nifti")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(timed(WAYS[options.way], options.folder)))
        return
    print_hardware()
    with scratch_folder() as scratch:
        folder = make_series(scratch / "ct", QUICK if options.quick else FULL, options.compressed)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(f"{len(list(folder.iterdir()))} files, {size:.0f} MB\n")
        read_bytes(folder)
        found = {name: [] for name in ways(options.dicom2nifti)}
        for _ in range(1 if options.quick else options.rounds):
            for name, children in found.items():
                children.append(one(name, folder, options.dicom2nifti))
        report(found)


def ways(dicom2nifti: Path | None) -> list[str]:
    """What can be compared here; says why something cannot."""
    names = list(WAYS)
    if importlib.util.find_spec("SimpleITK") is None:
        names.remove("SimpleITK")
        print("SimpleITK is left out: it is not installed.\n")
    if shutil.which("dcm2niix") is None:
        names.remove("dcm2niix")
        print("dcm2niix is left out: it is not installed.\n")
    if dicom2nifti is None:
        print("dicom2nifti is left out: name a Python that has it with --dicom2nifti.\n")
        return names
    return [*names, "dicom2nifti"]


def one(name: str, folder: Path, dicom2nifti: Path | None) -> Child:
    """One turn of one way."""
    if name == "dicom2nifti":
        return run_python("-c", FOREIGN, dicom2nifti, "-W", "ignore", "-c", DICOM2NIFTI, folder)
    return run_python(__file__, "--way", name, "--folder", folder)


def timed(way: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Seconds, and processor seconds, of one way in this process, once what it imports is there."""
    import pydicom.filereader  # noqa: F401

    import oncoseg.io.dicom.survey
    import oncoseg.io.dicom.voxels  # noqa: F401

    if way is simpleitk:
        import SimpleITK  # noqa: F401
    started, worked = time.perf_counter(), _processor_seconds()
    way(folder)
    return {"seconds": time.perf_counter() - started, "processor": _processor_seconds() - worked}


def _processor_seconds() -> float:
    """Of this process and of those that it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def report(found: dict[str, list[Child]]) -> None:
    """Print seconds, ratios within a round, and memory."""
    results = {name: [child.result() for child in children] for name, children in found.items()}
    ours = results["oncoseg"]
    rows = []
    for name, figures in results.items():
        row = [name]
        for what in ("seconds", "processor"):
            row.append(spread([each[what] for each in figures]))
            row.append(spread([each[what] / own[what] for each, own in zip(figures, ours, strict=True)], 1))
        rows.append([*row, f"{max(child.peak_mib for child in found[name]):.0f}"])
    header = ["way", "seconds", "times oncoseg's", "processor seconds", "times oncoseg's", "peak memory, MiB"]
    print_table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
