"""What every layout promises: cases as they lie on disk, and voxels that belong together."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dicom_files import slices, uid, write
from oncoseg import io
from oncoseg.datasets import DATASETS, open_dataset
from oncoseg.datasets.base import Scan
from oncoseg.inspect import inspect_dataset
from oncoseg.io.dicom.patients import patient_key
from oncoseg.labels import merge_labels
from oncoseg.phantom import PHANTOMS
from oncoseg.prepare import Settings, prepare
from oncoseg.recipe import Modality, Preparation
from oncoseg.volume import check_same_grid
from tiny_dicom import SALT, Geometry, image_uid, write_ct, write_seg
from tiny_lidc import Marked, Roi, Session, border, write_lidc_xml

Levels = Mapping[str, tuple[int, ...]]
"""Channel → the intensity from which each reader marked its voxels, rising; background is below 60."""

GRID, SLICES = (16, 14, 12), range(12)
"""Columns, rows and slices; not square, and slice 10 must come after slice 2."""


class Example(NamedTuple):
    """A tiny data set of a layout.

    Attributes:
        write: writes one case below a folder.
        patients: case → patient; three cases of two patients.
        levels: see `Levels`.
        alone: whether each case has only the channel that ends its name.
    """

    write: Callable[[Path, str, Levels], None]
    patients: Mapping[str, str]
    levels: Levels
    alone: bool = False

    def channels(self, case: str) -> set[str]:
        """The channels of a case."""
        return {case.rsplit("_", 1)[-1]} if self.alone else set(self.levels)

    def make(self, root: Path) -> Path:
        """Write every case."""
        for case in self.patients:
            self.write(root, case, self.levels)
        return root


def image(case: str, channel: str, levels: tuple[int, ...]) -> np.ndarray:
    """Noise and, except in the first two slices, a block whose rows rise from level to level."""
    voxels = np.random.default_rng(list(f"{case} {channel}".encode())).integers(0, 60, GRID)
    start = np.random.default_rng(list(case.encode())).integers(1, 8, 2)
    for step, level in enumerate(levels):
        voxels[start[0] : start[0] + 5, start[1] + step : start[1] + 5, 2:] = level
    return voxels


def marked(case: str, levels: Levels, reader: int) -> np.ndarray:
    """Where a reader marked a tumour, the same in every channel."""
    channel, of_readers = next(iter(levels.items()))
    return image(case, channel, of_readers) >= of_readers[reader]


def write_brats(root: Path, case: str, levels: Levels) -> None:
    endings = {"T1": "t1n", "T1ce": "t1c", "T2": "t2w", "FLAIR": "t2f"}
    (root / case).mkdir(parents=True)
    volumes = {endings[name]: image(case, name, of_readers) for name, of_readers in levels.items()}
    for ending, voxels in (volumes | {"seg": 3 * marked(case, levels, 0)}).items():
        nifti = nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
        nifti.to_filename(root / case / f"{case}-{ending}.nii.gz")


def write_lidc(root: Path, case: str, levels: Levels) -> None:
    patient, nodule = case.split("_")
    volumes = {"images": image(case, "CT", levels["CT"])}
    volumes |= {f"mask-{n}": 255 * marked(case, levels, n) for n in range(len(levels["CT"]))}
    for kind, voxels in volumes.items():
        folder = root / patient / nodule / kind
        folder.mkdir(parents=True)
        for k in SLICES:
            save(folder / f"slice-{k}.png", voxels[..., k].T)


def write_lgg(root: Path, case: str, levels: Levels) -> None:
    (root / case).mkdir(parents=True)
    colours = np.stack([image(case, name, levels[name]) for name in ("T1", "FLAIR", "T1ce")], axis=-1)
    for k in SLICES:
        save(root / case / f"{case}_{k + 1}.tif", colours[..., k, :].transpose(1, 0, 2))
        save(root / case / f"{case}_{k + 1}_mask.tif", 255 * marked(case, levels, 0)[..., k].T)


def save_nifti(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels.astype(np.int16), np.diag([-1.0, -1.0, 2.0, 1.0])).to_filename(path)


def write_index(root: Path, **index: object) -> None:
    """Write `dataset.json`, and `patients.csv` in which a case is its patient's name with a number."""
    files = sorted(path.name.removesuffix(".nii.gz") for path in (root / "labelsTr").iterdir())
    training = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in files
    ]
    listed = {"training": training} if "modality" in index else {}
    (root / "dataset.json").write_text(json.dumps(index | listed | {"numTraining": len(files)}))
    lines = ["case,patient", *(f"{name},{name[:-2]}" for name in files)]
    (root / "patients.csv").write_text("\n".join(lines))


def write_decathlon(root: Path, case: str, levels: Levels) -> None:
    channels = [image(case, name, of_readers) for name, of_readers in levels.items()]
    save_nifti(root / "imagesTr" / f"{case}.nii.gz", np.stack(channels, axis=-1))
    save_nifti(root / "labelsTr" / f"{case}.nii.gz", marked(case, levels, 0))
    modality = {str(number): name for number, name in enumerate(levels)}
    write_index(root, modality=modality, labels={"0": "background", "1": "tumour"})


def write_nnunet(root: Path, case: str, levels: Levels) -> None:
    for number, (name, of_readers) in enumerate(levels.items()):
        save_nifti(root / "imagesTr" / f"{case}_{number:04d}.nii.gz", image(case, name, of_readers))
    save_nifti(root / "labelsTr" / f"{case}.nii.gz", marked(case, levels, 0))
    names = {str(number): name for number, name in enumerate(levels)}
    labels = {"background": 0, "tumour": 1}
    write_index(root, channel_names=names, labels=labels, file_ending=".nii.gz")


def write_table(root: Path, case: str, levels: Levels) -> None:
    for name, of_readers in levels.items():
        save_nifti(root / "images" / f"{case}_{name}.nii.gz", image(case, name, of_readers))
    save_nifti(root / "labels" / f"{case}.nii.gz", marked(case, levels, 0))
    table = root / "cases.csv"
    known = table.read_text() if table.exists() else f"case,patient,{','.join(levels)},label\n"
    paths = [f"images/{case}_{name}.nii.gz" for name in levels]
    table.write_text(f"{known}{case},{case[:-2]},{','.join(paths)},labels/{case}.nii.gz\n")


def write_paired(root: Path, case: str, levels: Levels) -> None:
    patient, channel = case.rsplit("_", 1)
    save_nifti(root / patient / f"{channel}_image.nii.gz", image(case, channel, levels[channel]))
    save_nifti(root / patient / f"{channel}_mask.nii.gz", marked(case, levels, 0))


def write_lidc_dicom(root: Path, case: str, levels: Levels) -> None:
    patient, _, number = case.partition("_")
    series = f"1.2.3.{int(patient[-4:])}.{number or 1}"
    folder = root / patient / f"study-{number}" / "CT"
    write_ct(folder, image(case, "CT", levels["CT"]), series=series, patient=patient)
    sessions = [Session([Marked(_outlines(case, levels, n, series))]) for n in range(len(levels["CT"]))]
    write_lidc_xml(folder / f"{number or 1}.xml", series, sessions)


def _outlines(case: str, levels: Levels, reader: int, series: str) -> list[Roi]:
    """Around the rectangle that a reader marked, in each slice that it lies in."""
    found = np.argwhere(marked(case, levels, reader))
    (left, top, first), (right, bottom, last) = found.min(axis=0).tolist(), found.max(axis=0).tolist()
    points = border((left, top), (right, bottom))
    return [Roi(image_uid(k, series), 30 + 2.5 * k, points) for k in range(first, last + 1)]


def write_dicom(root: Path, case: str, levels: Levels) -> None:
    """A study with a series for each channel on one grid, and a SEG of the first."""
    patient, folder = PATIENT_IDS[case.partition("_")[0]], root / "ward" / case
    frame, series = uid(case, "frame"), {name: uid(case, name) for name in levels}
    geometry = Geometry(step_mm=(0, 0, 2), origin_mm=(-10, 20, 30), pixel_mm=(0.8, 0.5))
    for name, of_readers in levels.items():
        made = slices(
            image(case, name, of_readers).astype("u2"),
            modality="MR",
            name=f"{case} {name}",
            PatientID=patient,
            StudyInstanceUID=uid("study", case),
            SeriesInstanceUID=series[name],
            SeriesDescription=f"ax {name.lower()}",
            FrameOfReferenceUID=frame,
        )
        write(made, folder / name)
    mask = marked(case, levels, 0)
    frames = [(1, mask[..., k].T, geometry.points([(0, 0, k)])[0]) for k in SLICES if mask[..., k].any()]
    first = next(iter(levels))
    write_seg(folder / "mask.dcm", frames, ["tumour"], geometry, frame=frame, series=series[first])


PATIENT_IDS = {f"P{patient_key(name, '', SALT)}": name for name in ("Jane Doe", "John Doe")}
"""Key of a patient → the number in the files."""

JANE, JOHN = PATIENT_IDS


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


EXAMPLES = {
    "brats": Example(
        write_brats,
        {
            "BraTS-GLI-00005-000": "BraTS-GLI-00005",
            "BraTS-GLI-00005-001": "BraTS-GLI-00005",
            "BraTS-GLI-00007-000": "BraTS-GLI-00007",
        },
        {"T1": (500,), "T1ce": (600,), "T2": (700,), "FLAIR": (800,)},
    ),
    "lidc_slices": Example(
        write_lidc,
        {
            "LIDC-IDRI-0001_nodule-0": "LIDC-IDRI-0001",
            "LIDC-IDRI-0001_nodule-1": "LIDC-IDRI-0001",
            "LIDC-IDRI-0002_nodule-0": "LIDC-IDRI-0002",
        },
        {"CT": (160, 190, 220, 250)},
    ),
    "lidc_dicom": Example(
        write_lidc_dicom,
        {
            "LIDC-IDRI-0001_1": "LIDC-IDRI-0001",
            "LIDC-IDRI-0001_2": "LIDC-IDRI-0001",
            "LIDC-IDRI-0002": "LIDC-IDRI-0002",
        },
        {"CT": (160, 190, 220, 250)},
    ),
    "lgg": Example(
        write_lgg,
        {
            "TCGA_CS_0001_19990101": "TCGA_CS_0001",
            "TCGA_CS_0001_20000101": "TCGA_CS_0001",
            "TCGA_HT_0002_19990101": "TCGA_HT_0002",
        },
        {"T1": (190,), "T1ce": (220,), "FLAIR": (250,)},
    ),
    "decathlon": Example(
        write_decathlon,
        {"BRATS_001-0": "BRATS_001", "BRATS_001-1": "BRATS_001", "BRATS_002-0": "BRATS_002"},
        {"FLAIR": (500,), "T1": (600,), "ADC": (700,)},
    ),
    "nnunet_raw": Example(
        write_nnunet,
        {"liver_1-0": "liver_1", "liver_1-1": "liver_1", "liver_2-0": "liver_2"},
        {"CT": (500,), "PET": (600,)},
    ),
    "table": Example(write_table, {"A-0": "A", "A-1": "A", "B-0": "B"}, {"T1": (500,), "T2": (600,)}),
    "paired": Example(
        write_paired,
        {"STS_1_CT": "STS_1", "STS_1_T1": "STS_1", "STS_2_CT": "STS_2"},
        {"CT": (500,), "T1": (600,)},
        alone=True,
    ),
    "dicom_folder": Example(
        write_dicom,
        {f"{JANE}_1": JANE, f"{JANE}_2": JANE, JOHN: JOHN},
        {"T1": (500,), "FLAIR": (600,)},
    ),
}
"""A new layout needs an entry here."""

PHANTOM_LAYOUTS = {
    "brain-mri": "brats",
    "lung-ct": "lidc_slices",
    "liver-ct": "decathlon",
    "vessel-ct": "decathlon",
    "lung-ct-dicom": "lidc_dicom",
    "hospital-dicom": "dicom_folder",
}

SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")

every = pytest.mark.parametrize("name", DATASETS)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scan]:
    return {name: open_dataset(EXAMPLES[name].make(tmp_path_factory.mktemp(name))) for name in DATASETS}


@every
def test_every_case_is_described_with_its_patient_and_without_a_problem(
    name: str, scans: dict[str, Scan]
) -> None:
    scan, example = scans[name], EXAMPLES[name]
    assert (scan.layout, scan.problems) == (name, ())
    assert {case.id: case.patient for case in scan.cases} == example.patients
    assert [case.id for case in scan.cases] == sorted(example.patients)
    for case in scan.cases:
        assert set(case.id) <= SAFE
        known = DATASETS[name].channels or example.levels
        assert set(case.images) == example.channels(case.id) <= set(known)
        assert 0 not in case.labels


@every
def test_each_channel_and_each_reader_is_its_own_and_they_share_a_grid(
    name: str, scans: dict[str, Scan]
) -> None:
    levels = EXAMPLES[name].levels
    for case in scans[name].cases:
        images = io.read_channels(case.images)
        masks = [io.read(ref) for ref in case.masks]
        assert len(masks) == len(next(iter(levels.values())))
        for reader, mask in enumerate(masks):
            check_same_grid({"images": images, "mask": mask})
            tumour = merge_labels(mask.array[0], case.labels, {"tumour": ("*",)}) > 0
            for channel, voxels in zip(case.images, images.array, strict=True):
                assert voxels.max() == levels[channel][-1], channel
                np.testing.assert_array_equal(tumour, voxels >= levels[channel][reader])


@every
def test_every_case_can_be_prepared(name: str, scans: dict[str, Scan], tmp_path: Path) -> None:
    modality = Modality(channels=tuple(scans[name].cases[0].images))
    cases = [case for case in scans[name].cases if set(case.images) == set(modality.channels)]
    settings = Settings.of(modality, {"tumour": ("*",)}, Preparation(slice_size=(16, 16)))
    for prepared in prepare(cases, settings, tmp_path, workers=0):
        images, masks = prepared.read(0, len(prepared))
        assert images.shape == (len(prepared), len(modality.channels), 16, 16)
        assert 0 < prepared.tumour_pixels.sum() == (masks > 0).sum()
        filled = (masks > 0).flatten(1).any(1)
        inside = (images[:, 0] * masks).flatten(1).sum(1)[filled] / masks.flatten(1).sum(1)[filled]
        outside = (images[:, 0] * (1 - masks)).flatten(1).mean(1)[filled]
        assert (inside > outside + 0.3).all()


@every
def test_inspecting_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    found = inspect_dataset(EXAMPLES[name].make(tmp_path), workers=1)
    assert (found.layout, found.case_count, found.patient_count, found.problems) == (name, 3, 2, ())
    assert all(row.foreground_slices == len(SLICES) - 2 for row in found.cases)


@every
def test_a_folder_level_above_is_found_and_named_layouts_work(name: str, tmp_path: Path) -> None:
    EXAMPLES[name].make(tmp_path / "Training_Data")
    assert open_dataset(tmp_path).cases == open_dataset(tmp_path / "Training_Data", name).cases


@every
def test_hidden_files_are_not_cases(name: str, tmp_path: Path) -> None:
    EXAMPLES[name].make(tmp_path)
    for file in list(tmp_path.rglob("*.*")):
        (file.parent / f"._{file.name}").touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._x.nii.gz").touch()
    scan = open_dataset(tmp_path)
    assert (len(scan.cases), scan.problems) == (3, ())


@every
def test_every_layout_is_documented_with_an_example(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page
    assert re.search(rf"^oncoseg inspect \S+ +# {name}$", page, re.MULTILINE)


@every
@pytest.mark.parametrize("other", DATASETS)
def test_only_the_own_layout_is_recognised(name: str, other: str, tmp_path: Path) -> None:
    assert DATASETS[name].recognise(EXAMPLES[other].make(tmp_path)) == (name == other)


@pytest.mark.parametrize("kind", PHANTOMS)
def test_phantoms_are_read_in_their_own_layout(kind: str, tmp_path: Path) -> None:
    PHANTOMS[kind](tmp_path / "out", 1, 0)
    scan = open_dataset(tmp_path / "out")
    assert scan.layout == PHANTOM_LAYOUTS[kind]
    assert not scan.problems
    for case in scan.cases:
        volume = io.read_channels(case.images)
        assert np.isfinite(volume.array).all()
        masks = [merge_labels(io.read(ref).array[0], case.labels, {"tumour": ("*",)}) for ref in case.masks]
        assert any(mask.any() for mask in masks)
        assert all(mask.shape == volume.grid for mask in masks)
