"""Identifiers planted all over a hospital's folder: no command shows one, or writes one to a file."""

import contextlib
import datetime
import gzip
import io
import logging
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from oncoseg.cli import main
from oncoseg.errors import DataError
from oncoseg.io import ImageRef
from oncoseg.io.annotations import open_structures, read_labels
from oncoseg.phantom.hospital_dicom import make_hospital_dicom

FAMILY, GIVEN, NUMBER, PHYSICIAN = "Quillfeather", "Ambrosius", "MRN7788", "Haberstroh"
ACCESSION, INSTITUTION, COMMENT, PRIVATE = "ACC5550199", "Zollernklinik", "Gartenstrasse", "Nibelwitz"
STRUCTURES, OBSERVER, IN_NIFTI = "Labelquist", "Observanto", "Niftigold"
BIRTH, STUDY_DATE = datetime.date(1943, 2, 17), datetime.date(2019, 8, 23)

DESCRIBED = "Wobblethorpe"
"""Within SeriesDescription, from which a user tells series apart: shown, and never kept."""

FOLDER = "Pathgrimble"
"""Within folders' names: a message that names a file shows it, and no result keeps it."""

SECRETS = (FAMILY, GIVEN, NUMBER, PHYSICIAN, ACCESSION, INSTITUTION, COMMENT, PRIVATE, STRUCTURES, OBSERVER)

PATIENTS, SIZE = 6, (16, 16, 16)

TRAINING = {
    "modalities.mri.channels": '["T1","T1","T1","T1"]',
    "modalities.mri.substitutes": "{}",
    "preparation.slice-size": "[16,16]",
    "network.arguments.features": "[4,8]",
    "training.pretrain-on": "none",
    "training.max-epochs": "1",
    "training.batch-size": "8",
    "training.device": "cpu",
    "training.precision": "32-true",
    "split.train": "0.4",
    "split.validation": "0.3",
}


def spellings(secret: str | datetime.date) -> list[bytes]:
    """How an identifier may be written: bytes in small letters, one or two for each letter."""
    if isinstance(secret, datetime.date):
        texts = [f"{secret:{form}}" for form in ("%Y%m%d", "%Y-%m-%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y")]
    else:
        texts = [secret.lower()]
    return [text.encode(code) for text in texts for code in ("utf-8", "utf-16-le", "utf-16-be")]


def traces(content: bytes, secrets: Sequence[str | datetime.date]) -> set[str]:
    """Which of the identifiers are in these bytes, whatever the case of their letters."""
    content = content.lower()
    return {str(secret) for secret in secrets if any(each in content for each in spellings(secret))}


def contents(file: Path) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in them."""
    content = file.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif file.suffix == ".parquet":
        from pyarrow import parquet

        found = parquet.read_table(file)
        yield (str(found.to_pydict()) + str(found.schema)).encode()
    elif content[:4] == b"\x89PNG":
        from PIL import Image

        with Image.open(file) as image:
            yield str(image.info).encode()


def leaks(folder: Path, secrets: Sequence[str | datetime.date]) -> dict[str, set[str]]:
    """File → what is in it or in its name, of every file of a folder that holds something planted."""
    found = {}
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    for file in files:
        name = str(file.relative_to(folder))
        if here := traces(name.encode(), secrets).union(*(traces(each, secrets) for each in contents(file))):
            found[name] = here
    return found


def plant(header: Dataset, number: int) -> None:
    """Identifiers into everything of a DICOM file that may hold any."""
    header.PatientName = f"{FAMILY}^{GIVEN}"
    header.PatientID, header.AccessionNumber = f"{NUMBER}-{number}", ACCESSION
    header.PatientBirthDate, header.PatientAddress = f"{BIRTH:%Y%m%d}", COMMENT
    header.StudyDate = header.SeriesDate = header.ContentDate = f"{STUDY_DATE:%Y%m%d}"
    header.AcquisitionDateTime = f"{STUDY_DATE:%Y%m%d}101112"
    header.OtherPatientNames = [f"{FAMILY}^{GIVEN}", f"{PHYSICIAN}^{GIVEN}"]
    header.InstitutionName = header.InstitutionAddress = header.StationName = INSTITUTION
    header.ReferringPhysicianName = header.OperatorsName = f"{PHYSICIAN}^A"
    header.PerformingPhysicianName = header.RequestingPhysician = f"{PHYSICIAN}^A"
    header.StudyDescription = header.ProtocolName = f"Head of {FAMILY}, {GIVEN}, {BIRTH:%d.%m.%Y}"
    header.PatientComments = header.ImageComments = header.AdditionalPatientHistory = COMMENT
    request = Dataset()
    request.RequestedProcedureDescription, request.AccessionNumber = f"for {PHYSICIAN}", ACCESSION
    header.RequestAttributesSequence = [request]
    block = header.private_block(0x0029, f"{PRIVATE} CREATOR", create=True)
    block.add_new(1, "LO", f"{FAMILY} {PRIVATE}")
    block.add_new(2, "OB", f"{GIVEN}{PRIVATE}!".encode())
    header.preamble = (PRIVATE.encode() * 20)[:128]
    if header.Modality == "RTSTRUCT":
        header.StructureSetLabel = header.StructureSetName = STRUCTURES
        header.StructureSetDescription = f"{STRUCTURES} {FAMILY}"
        for structure in header.StructureSetROISequence:
            structure.ROIName, structure.ROIDescription = f"GTV {FAMILY}", OBSERVER
        for seen in header.RTROIObservationsSequence:
            seen.ROIInterpreter, seen.ROIObservationLabel = f"{OBSERVER}^O", STRUCTURES
    else:
        header.SeriesDescription = f"Ax T1 SE {DESCRIBED}"


def hospital(folder: Path) -> Path:
    """A hospital's folder with the identifiers, also in folders' names."""
    make_hospital_dicom(folder / "plain", PATIENTS, 1, size=SIZE)
    for number, source in enumerate(sorted((folder / "plain").glob("PATIENT-*"))):
        for file in sorted(source.rglob("*.dcm")):
            header = dcmread(file)
            plant(header, number)
            out = folder / "clinic" / f"{FOLDER}_{number}" / file.relative_to(source)
            out.parent.mkdir(parents=True, exist_ok=True)
            header.save_as(out)
    (folder / "clinic" / "channels.json").write_text('{"T1": "Ax T1"}')
    return folder / "clinic"


def nifti_table(folder: Path) -> Path:
    """A table of NIfTI files, whose headers and names of cases are planted."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["case,patient,T1,label,site"]
    for number in range(2):
        mask = np.zeros(SIZE, np.uint8)
        mask[4:9, 4:9, 4:9] = 1
        voxels = (rng.integers(0, 200, SIZE) + 800 * (mask > 0)).astype(np.int16)
        for name, array in (("image", voxels), ("mask", mask)):
            image = nib.Nifti1Image(array, np.eye(4))
            image.header["descrip"], image.header["aux_file"] = f"{FAMILY} {IN_NIFTI}", IN_NIFTI
            image.header["db_name"], image.header["intent_name"] = NUMBER, IN_NIFTI
            image.header.extensions.append(nib.nifti1.Nifti1Extension(6, f"{FAMILY} {BIRTH}".encode()))
            image.to_filename(folder / f"{name}-{number}.nii.gz")
        who = f"{FAMILY}-{number}"
        lines.append(f"{who},{NUMBER}-{number},image-{number}.nii.gz,mask-{number}.nii.gz,{INSTITUTION}")
    (folder / "cases.csv").write_text("\n".join(lines))
    return folder / "cases.csv"


def overwrite(file: Path, tag: bytes) -> None:
    """A name where the numbers of an element begin, whose head of eight bytes starts with this tag."""
    content = bytearray(file.read_bytes())
    at = content.rindex(tag) + 8
    content[at : at + len(FAMILY)] = FAMILY.encode()
    file.write_bytes(content)


def truncated(study: Path) -> None:
    file = study / "MR" / "1-006.dcm"
    file.write_bytes(file.read_bytes()[:-100])


def gap(study: Path) -> None:
    (study / "MR" / "1-006.dcm").unlink()


def ambiguous(study: Path) -> None:
    """The series a second time, under other UIDs."""
    for file in sorted((study / "MR").glob("*.dcm")):
        header = dcmread(file)
        header.SeriesInstanceUID = generate_uid(entropy_srcs=["another series"])
        header.SOPInstanceUID = generate_uid(entropy_srcs=["another", file.name])
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.save_as(file.with_name(f"again-{file.name}"))


def structure(study: Path) -> None:
    (study.parent / "labels.json").write_text('{"tumour": "no such structure"}')


def contours(study: Path) -> None:
    overwrite(study / "RTSTRUCT" / "1-1.dcm", b"\x06\x30\x50\x00")


def between(study: Path) -> None:
    raise_contours(study / "RTSTRUCT" / "1-1.dcm", 4.5)


def far(study: Path) -> None:
    raise_contours(study / "RTSTRUCT" / "1-1.dcm", 900)


def raise_contours(file: Path, by_mm: float) -> None:
    header = dcmread(file)
    for contour in header.ROIContourSequence[0].ContourSequence:
        points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
        points[:, 2] += by_mm
        contour.ContourData = [f"{each:.4f}" for each in points.ravel()]
    header.save_as(file)


def uids(study: Path) -> None:
    """In place of the image that a contour refers to."""
    overwrite(study / "RTSTRUCT" / "1-1.dcm", b"\x08\x00\x55\x11")


def values(study: Path) -> None:
    overwrite(study / "MR" / "1-006.dcm", b"\x20\x00\x32\x00")


def deflated(study: Path) -> None:
    for file in sorted((study / "MR").glob("*.dcm")):
        header = dcmread(file)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        header.save_as(file)
        file.write_bytes(file.read_bytes()[:-200])


WAYS = (truncated, gap, ambiguous, structure, contours, between, far, uids, values, deflated)
"""How a study, or the folder above it, is damaged."""


def damaged(clinic: Path, folder: Path, way: Callable[[Path], None]) -> Path:
    """A copy of two patients, with something wrong about the first."""
    others = [f"{FOLDER}_{number}" for number in range(2, PATIENTS)]
    shutil.copytree(clinic, folder / "damaged", ignore=shutil.ignore_patterns(*others))
    way(folder / "damaged" / f"{FOLDER}_0")
    return folder / "damaged"


class Said(NamedTuple):
    """What a command gave back and showed: results, messages, log records and warnings."""

    code: int
    text: str


def call(*arguments: object) -> Said:
    """Run a command in this process and keep all that it says."""
    shown, records = io.StringIO(), io.StringIO()
    handler, root = logging.StreamHandler(records), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with (
            contextlib.redirect_stdout(shown),
            contextlib.redirect_stderr(shown),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            code = main([str(each) for each in arguments])
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    said = [shown.getvalue(), records.getvalue(), *(str(each.message) for each in warned)]
    return Said(code, "\n".join(said))


class Pipeline(NamedTuple):
    """A folder with everything that was written, and what each command said."""

    out: Path
    said: Mapping[str, Said]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hospital(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def pipeline(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """From the hospital's folder to reports, in one go."""
    out = tmp_path_factory.mktemp("everything")
    table = nifti_table(tmp_path_factory.mktemp("tables") / "nifti")
    fields: list[Any] = [token for name, value in TRAINING.items() for token in (f"--{name}", value)]
    run, masks, scores = out / "run", out / "masks", out / "scores"
    data = ["--only", "mri", "--data", f"mri={source}"]
    store = ["--store", out / "store", "--workers", "0"]
    commands: dict[str, list[Any]] = {
        "inspect": ["inspect", source],
        "train": ["train", "unified-mri-ct", *data, "--out", run, *store, *fields],
        "evaluate": ["evaluate", run],
        "report": ["report", run],
        "predict": ["predict", run, source, "--out", masks, "--probabilities"],
        "predict-dicom": [
            *("predict", run, source, "--out", out / "dicom"),
            *("--format", "seg", "--format", "rtstruct"),
        ],
        "predict-nifti": ["predict", run, table.parent, "--out", out / "from-nifti"],
        "masks": ["evaluate", "--prediction", masks, "--truth", source, "--out", scores, "--workers", "0"],
        "run-masks": ["evaluate", run, "--threshold", "0.01", "--out", out / "lower"],
        "compare": ["compare", f"a={run}", f"b={out / 'lower'}", "--out", out / "comparison"],
        "leaks": ["leaks", run, "--workers", "0"],
        "convert": ["convert", source, "--to", "nifti", "--out", out / "nifti", "--workers", "0"],
        "nnunet": ["convert", source, "--to", "nnunet", "--out", out / "Dataset501_A", "--workers", "0"],
        "table": ["convert", table, "--to", "nifti", "--out", out / "table", "--workers", "0"],
        "deidentify": ["convert", source, "--deidentify", "--out", out / "shared"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out / "cache"))
        return Pipeline(out, {name: call(*command) for name, command in commands.items()})


def test_what_is_planted_is_found_at_the_source(source: Path) -> None:
    everything = {*SECRETS, str(BIRTH), str(STUDY_DATE), DESCRIBED, FOLDER}
    found = leaks(source, (*SECRETS, BIRTH, STUDY_DATE, DESCRIBED, FOLDER))
    assert set().union(*found.values()) == everything
    assert traces("1943-02-17 und QUILLFEATHER".encode("utf-16"), (BIRTH, FAMILY)) == {str(BIRTH), FAMILY}


def test_every_command_does_its_work(pipeline: Pipeline) -> None:
    failed = {name: said for name, said in pipeline.said.items() if said.code != 0}
    assert failed == {}


def test_no_identifier_is_shown(pipeline: Pipeline) -> None:
    shown = {
        name: found
        for name, said in pipeline.said.items()
        if (found := traces(said.text.encode(), (*SECRETS, IN_NIFTI, BIRTH, STUDY_DATE)))
    }
    # a table's names are the user's own words for the cases, by which messages call them
    assert shown.keys() <= {"predict-nifti", "table"}, shown


@pytest.mark.parametrize(
    "name",
    [
        *(
            "run",
            "lower",
            "store",
            "cache",
            "masks",
            "scores",
            "comparison",
            "nifti",
            "Dataset501_A",
            "table",
        ),
        "shared",
    ],
)
def test_no_identifier_is_written(pipeline: Pipeline, name: str) -> None:
    secrets = (*SECRETS, IN_NIFTI, DESCRIBED, FOLDER, BIRTH, STUDY_DATE)
    assert any(file.is_file() for file in (pipeline.out / name).rglob("*"))
    assert leaks(pipeline.out / name, secrets) == {}


def test_nothing_of_a_nifti_header_is_in_a_mask_but_its_own_name(pipeline: Pipeline) -> None:
    for file in (pipeline.out / "from-nifti").glob("*.nii.gz"):
        for content in contents(file):
            assert traces(content, (*SECRETS, IN_NIFTI, BIRTH)) == set()


def test_masks_in_dicom_are_named_without_their_patient(pipeline: Pipeline) -> None:
    files = sorted((pipeline.out / "dicom").rglob("*"))
    assert {file.suffix for file in files} >= {".dcm", ".json"}
    for file in files:
        assert traces(file.name.encode(), (*SECRETS, DESCRIBED, FOLDER)) == set()
        if file.suffix != ".dcm":
            assert traces(file.read_bytes(), (*SECRETS, DESCRIBED, BIRTH)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_errors_tell_no_identifier(
    source: Path, pipeline: Pipeline, tmp_path: Path, way: Callable[[Path], None]
) -> None:
    wrong, found = damaged(source, tmp_path, way), tmp_path / "found"
    found.mkdir()
    run, truth = pipeline.out / "run", ["--truth", wrong, "--out", found / "scores", "--workers", "0"]
    said = [
        call("inspect", wrong, "--json", found / "found.json"),
        call("predict", run, wrong / f"{FOLDER}_0", "--modality", "mri", "--out", found / "masks"),
        call("convert", wrong, "--to", "nifti", "--out", found / "nifti", "--workers", "0"),
        call("convert", wrong, "--deidentify", "--out", found / "shared"),
        call("evaluate", "--prediction", pipeline.out / "masks", *truth),
    ]
    assert all(each.code in (0, 2) for each in said), said
    assert "Traceback" not in "".join(each.text for each in said)
    for each in said:
        assert traces(each.text.encode(), (*SECRETS, BIRTH, STUDY_DATE)) == set(), each.text
    # what `inspect --json` writes is for who asked: it names the files that are wrong
    assert leaks(found, (*SECRETS, DESCRIBED, BIRTH, STUDY_DATE)) == {}
    assert "No problems found" not in said[0].text
    found.joinpath("found.json").unlink()
    assert leaks(found, [FOLDER]) == {}


def test_names_of_structures_that_may_be_patients_are_in_no_error(source: Path) -> None:
    file = source / f"{FOLDER}_0" / "RTSTRUCT" / "1-1.dcm"
    opened = open_structures(file)
    for wanted in ("GTV", "GTV Quill"):
        with pytest.raises(DataError) as caught:
            opened.find(wanted)
        assert "1 with words that may name a patient" in str(caught.value)
        assert FAMILY not in str(caught.value)
    with pytest.raises(DataError, match="it has 1 with words") as caught:
        read_labels(ImageRef((file,), grid_of=(file,)))
    assert FAMILY not in str(caught.value)
