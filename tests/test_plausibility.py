"""What is refused or remarked upon before training and prediction, on images that show it plainly."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oncoseg import datasets, io, plausibility
from oncoseg.cli import main
from oncoseg.phantom.liver_ct import LIVER, synthesise
from oncoseg.plausibility import Look, doubts, look, summarise, unlike
from oncoseg.volume import Volume

SPACED = np.diag([-0.8, -0.8, 2.5, 1.0])
CODED = nib.Nifti1Image(np.zeros((2, 2, 2)), SPACED).header
CODED.set_sform(SPACED, code=1)


def volume(voxels: np.ndarray, affine: np.ndarray = SPACED, **more: object) -> Volume:
    return Volume(voxels[None], affine, **({"header": CODED} | more))


def kinds(name: str, voxels: np.ndarray, in_hounsfield: bool = True) -> list[tuple[str, bool]]:
    found = look(volume(voxels), {name: voxels})
    return [(doubt.kind, doubt.refused) for doubt in doubts(found, in_hounsfield)]


def body() -> np.ndarray:
    """A CT in Hounsfield units: soft tissue with noise in a ring of fat, and air around."""
    rng = np.random.default_rng(0)
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 20)], indexing="ij")
    radius = np.hypot(x, y)
    hu = np.select([radius < 0.6, radius < 0.75], [45.0, -100.0], -1000.0)
    return np.clip(np.rint(hu + rng.normal(0, 20, hu.shape)), -1024, 3071).astype(np.int16)


def head() -> np.ndarray:
    """An MRI: noise in the background, a bright head."""
    return np.abs(np.where(body() > -300, 600, 8) + np.random.default_rng(1).normal(0, 5, (40, 40, 20)))


def test_what_is_right_raises_no_doubt() -> None:
    assert kinds("CT", body()) == []
    assert kinds("T1", head()) == []


@pytest.mark.parametrize(
    ("what", "voxels"),
    [
        ("a picture", np.interp(body(), (-1000, 400), (0, 255)).astype(np.uint8)),
        ("shares", np.interp(body(), (-1000, 400), (0, 1))),
        ("stored values without their intercept", body().astype(np.int32) + 1024),
        ("beyond what scanners write", body().astype(np.float64) * 100),
    ],
)
def test_a_ct_that_is_not_in_hounsfield_units_is_refused_where_a_window_needs_them(
    what: str, voxels: np.ndarray
) -> None:
    assert kinds("CT", voxels, in_hounsfield=True) == [("not-hounsfield", True)], what
    assert kinds("CT", voxels, in_hounsfield=False) == [("not-hounsfield", False)], what


def test_a_ct_without_air_is_remarked_upon() -> None:
    assert kinds("CT", np.clip(body(), -100, 300)) == [("no-air", False)]


def test_a_ct_given_as_mri_is_refused_and_one_standardised_is_remarked_upon() -> None:
    assert kinds("T1", body()) == [("looks-like-ct", True)]
    mri = head()
    assert kinds("T1", (mri - mri.mean()) / mri.std()) == [("negative", False)]
    assert kinds("T1", mri - 8) == [], "a spline's undershoot is usual"


def test_a_mask_given_as_image_is_refused() -> None:
    for name in ("CT", "T1"):
        for value in (1, 4, 255):
            assert kinds(name, (body() > -300).astype(np.uint8) * value) == [("looks-like-labels", True)]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_voxels_of_metres_and_of_micrometres_are_refused(scale: float) -> None:
    affine = np.diag([*(scale * np.diag(SPACED)[:3]), 1.0])
    found = look(volume(body(), affine), {"CT": body()})
    assert [(doubt.kind, doubt.refused) for doubt in doubts(found, True)] == [("size", True)]


def test_an_image_that_does_not_say_how_the_patient_lies_is_remarked_upon() -> None:
    header = CODED.copy()
    header["sform_code"] = header["qform_code"] = 0
    for image in (volume(body(), header=header), volume(body(), header=None, spacing_known=False)):
        assert [doubt.kind for doubt in doubts(look(image, {"CT": body()}), True)] == ["no-orientation"]


def test_a_look_goes_through_json() -> None:
    found = look(volume(body()), {"CT": body()})
    assert Look.from_json(json.loads(json.dumps(found.as_json()))) == found
    assert found.slices == 20
    assert found.spacing_mm == pytest.approx((0.8, 0.8, 2.5))
    assert found.extent_mm == pytest.approx((32, 32, 50))


def test_an_image_unlike_the_training_is_remarked_upon() -> None:
    voxels = body()
    trained = summarise([look(volume(voxels), {"CT": voxels})])
    assert trained["spacing-of-slices"] == pytest.approx([2.5, 2.5])
    assert unlike(look(volume(voxels), {"CT": voxels}), trained) == []
    thick = look(volume(voxels, np.diag([-0.8, -0.8, 8.0, 1.0])), {"CT": voxels})
    assert [doubt.text.split(" is")[0] for doubt in unlike(thick, trained)] == ["The distance of slices (mm)"]
    lung = np.where(voxels > -900, -850, voxels)
    listed = unlike(look(volume(lung), {"CT": lung}), trained)
    assert listed[0].text.startswith("The share of air and lung of CT is 100%")
    assert not any(doubt.refused for doubt in listed)
    assert unlike(thick, {}) == [], "a run that does not say is compared with nothing"


def test_a_sample_of_slices_serves_as_well_as_the_whole() -> None:
    hu, _, affine = synthesise(np.random.default_rng(0), LIVER, (64, 64, 48))
    whole, part = (look(volume(hu, affine), {"CT": v}).channels["CT"] for v in (hu, hu[..., ::6]))
    assert whole.air == pytest.approx(part.air, abs=0.03)
    assert whole.high == pytest.approx(part.high, abs=60)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data set whose CT is no CT: values of a picture."""
    folder = tmp_path / "slices"
    from tiny import lidc_nodule

    for patient in range(6):
        lidc_nodule(folder, patient)
    return folder


def test_commands_refuse_and_are_told_to_accept(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = ["prepare", "unified-mri-ct", "--only", "ct", "--data", f"ct={pictures}", "--workers", "0"]
    prepare += ["--store", str(tmp_path / "store"), "--preparation.slice-size", "[16,16]"]
    window = ["--modalities.ct.scaling", "window"]
    assert main([*prepare, *window]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "expected Hounsfield units (air -1000, water 0), got 0 to" in said
    assert "add --accept-implausible" in said
    assert main([*prepare, *window, "--accept-implausible"]) == 0
    assert main(prepare) == 0, "slices scaled one by one need no Hounsfield units"


@pytest.mark.real_data
def test_real_images_are_what_they_are(shared_data: Path) -> None:
    """Nothing real is refused; the pictures of LIDC-IDRI's slices only where Hounsfield units are needed."""
    for name in ("lgg", "brats_layout"):
        for case in datasets.open_dataset(shared_data / name).cases:
            image = io.read_channels(case.images)
            found = look(image, dict(zip(case.images, image.array, strict=True)))
            assert not [doubt for doubt in doubts(found, True) if doubt.refused], case.id
    for folder in sorted((shared_data / "sts_ct_mr" / "nifti").iterdir()):
        for file, channel in (("CT_image", "CT"), ("MR_T1_image", "T1")):
            image = io.read(io.ImageRef((folder / f"{file}.nii.gz",)))
            assert doubts(look(image, {channel: image.array}), True) == [], file
        swapped = look(image, {"CT": image.array})
        assert [d.kind for d in doubts(swapped, True)] == ["not-hounsfield"], "an MRI given as CT"
        mask = io.read(io.ImageRef((folder / "CT_mask.nii.gz",)))
        assert [d.kind for d in doubts(look(mask, {"CT": mask.array}), True)] == ["looks-like-labels"]
    case = datasets.open_dataset(shared_data / "lidc_slices").cases[0]
    image = io.read_channels(case.images)
    found = plausibility.look(image, {"CT": image.array})
    assert [d.refused for d in doubts(found, True) if d.kind == "not-hounsfield"] == [True]
    assert [d.refused for d in doubts(found, False) if d.kind == "not-hounsfield"] == [False]
