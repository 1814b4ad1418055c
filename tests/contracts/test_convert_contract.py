"""What every conversion of every layout promises: opened again, it is the same data set."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_dataset_contract import EXAMPLES

from oncoseg import io
from oncoseg.convert import FORMATS, convert
from oncoseg.datasets import DATASETS, open_dataset
from oncoseg.datasets.base import Case, Scan
from oncoseg.labels import consensus, merge_labels
from oncoseg.phantom import PHANTOMS

LAYOUT_OF = {"nnunet": "nnunet_raw", "decathlon": "decathlon", "nifti": "table"}
"""How a format is recognised when it is read."""

AFFINE_KEPT = 1e-6
"""What converting promises about the affine of a NIfTI file or of a stack of pictures."""

FLOAT32_MM = 1e-4
"""The same where the source states its place in 64-bit numbers (DICOM, NRRD, MetaImage): NIfTI-1 holds 32."""

REAL = {
    "lgg": ("lgg", AFFINE_KEPT),
    "lidc_slices/LIDC-IDRI-slices": ("lidc_slices", AFFINE_KEPT),
    "brats_layout": ("brats", AFFINE_KEPT),
    "sts_ct_mr/nifti": ("paired", AFFINE_KEPT),
    "sts_ct_mr/dicom": ("dicom_folder", FLOAT32_MM),
    "nsclc_rtstruct": ("dicom_folder", FLOAT32_MM),
    "lidc_dicom_xml": ("lidc_dicom", FLOAT32_MM),
}
"""Folder of real data → its layout and how exact the affine is kept."""


def converted(source: Scan, path: Path, to: str, out: Path) -> list[Scan]:
    """Convert, by channel where a format wants the same channels in every case; gives what is then read."""
    sets = {tuple(case.images) for case in source.cases}
    if not FORMATS[to].alike or len(sets) == 1:
        convert(path, to, out, names="keep", workers=0)
        return [open_dataset(out)]
    scans = []
    for channels in sorted(sets):
        convert(path, to, out / channels[0], channels=channels, names="keep", workers=0)
        scans.append(open_dataset(out / channels[0]))
    return scans


def truth(case: Case) -> dict[str, np.ndarray]:
    """Where each label is, by its name, after the majority of the readers."""
    if not case.masks:
        return {}
    names = dict.fromkeys(case.labels.values())
    classes = {name: (name,) for name in names}
    maps = [merge_labels(io.read(ref).array[0], case.labels, classes) for ref in case.masks]
    agreed = consensus(maps, 0.5)
    return {name: agreed == number for number, name in enumerate(names, 1)}


def check_same(before: Case, after: Case, affine_tolerance: float) -> None:
    """Check patient, class, channels, voxels, types, places, spacing and labels."""
    assert (after.patient, after.target, after.site) == (before.patient, before.target, before.site)
    assert list(after.images) == list(before.images)
    for channel, ref in before.images.items():
        old, new = io.read(ref), io.read(after.images[channel])
        np.testing.assert_array_equal(new.array, old.array)
        np.testing.assert_allclose(new.affine_ras, old.affine_ras, atol=affine_tolerance, rtol=0)
        assert new.spacing_known == old.spacing_known
    marked, expected = truth(after), truth(before)
    assert bool(marked) == bool(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(marked.get(name, np.zeros_like(mask)), mask)
    if before.masks:
        mask_affine = io.read(after.masks[0]).affine_ras
        np.testing.assert_allclose(
            mask_affine, io.read(before.masks[0]).affine_ras, atol=affine_tolerance, rtol=0
        )


def check_clean(folder: Path) -> None:
    """Check that no header says more than it must."""
    files = list(folder.rglob("*.nii.gz"))
    assert files
    for file in files:
        header = nib.load(file).header
        for field in ("descrip", "aux_file", "intent_name", *(("db_name",) if "db_name" in header else ())):
            assert not header[field].item().strip(b"\0"), field
        assert not header.extensions


def check_round_trip(path: Path, to: str, out: Path, affine_tolerance: float) -> None:
    source = open_dataset(path)
    scans = converted(source, path, to, out)
    assert {scan.layout for scan in scans} == {LAYOUT_OF[to]}
    assert not [problem for scan in scans for problem in scan.problems]
    after = {case.id: case for scan in scans for case in scan.cases}
    assert sorted(after) == [case.id for case in source.cases]
    for case in source.cases:
        check_same(case, after[case.id], affine_tolerance)
    check_clean(out)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", DATASETS)
def test_a_converted_data_set_is_the_same_data_set(name: str, to: str, tmp_path: Path) -> None:
    check_round_trip(EXAMPLES[name].make(tmp_path / "in"), to, tmp_path / "out", AFFINE_KEPT)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("kind", PHANTOMS)
def test_phantoms_can_be_converted_and_stay_marked(kind: str, to: str, tmp_path: Path) -> None:
    PHANTOMS[kind](tmp_path / "in", 1, 0)
    check_round_trip(tmp_path / "in", to, tmp_path / "out", AFFINE_KEPT)
    assert open_dataset(tmp_path / "out").synthetic


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("folder", REAL)
def test_real_data_can_be_converted(folder: str, to: str, shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / folder).is_dir():
        pytest.skip(f"no {folder} among the real data")
    layout, tolerance = REAL[folder]
    assert open_dataset(shared_data / folder).layout == layout
    check_round_trip(shared_data / folder, to, tmp_path / "out", tolerance)
