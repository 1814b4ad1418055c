"""Pictures of an evaluation of masks, from files to the page."""

import base64
import io as bytes_io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from oncoseg import io
from oncoseg.cli import main
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError
from oncoseg.evaluate.masks import Result, evaluate_masks
from oncoseg.evaluate.panels import GREY, Panel, read_panels
from oncoseg.evaluate.pictures import MOST_CLASSES
from oncoseg.files import SYNTHETIC_NOTE
from oncoseg.report import examples, words, write_evaluation
from test_display import turned
from tiny import lidc_nodule, tiny_data

GRID = (12, 10, 6)
"""Of most images here; i runs to the patient's right."""


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def block(*ranges: tuple[int, int], value: int = 1) -> np.ndarray:
    """A mask with one block; an empty one without ranges."""
    mask = np.zeros(GRID, np.uint8)
    if ranges:
        mask[tuple(slice(*each) for each in ranges)] = value
    return mask


class Study:
    """A folder of truth, predictions and images, to be scored."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        case: str,
        truth: np.ndarray,
        found: np.ndarray | None,
        image: np.ndarray | None = None,
        **like: Any,
    ) -> None:
        for folder, voxels in (("truth", truth), ("ours", found), ("images", image)):
            if voxels is not None:
                save(self.root / folder / f"{case}.nii.gz", voxels, **like)

    def evaluate(self, images: bool = False, **options: Any) -> Result:
        folder = self.root / "images" if images else None
        truth, ours, out = (self.root / name for name in ("truth", "ours", "out"))
        return evaluate_masks(truth, ours, out, images=folder, workers=0, **options)

    def panels(self, images: bool = False, **options: Any) -> list[Panel]:
        self.evaluate(images, **options)
        summary = json.loads((self.root / "out" / "summary.json").read_text(encoding="utf-8"))
        return read_panels(self.root / "out", summary["panels"])

    def page(self) -> str:
        return write_evaluation(self.root / "out").read_text(encoding="utf-8")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.fixture
def five(study: Study) -> Study:
    """Five patients with the same tumour of 4×4×2 voxels, of which 4, 3, 2, 1 and 4 columns were found.

    Dice: a 1, b 6/7, c 2/3, d 2/5, e 1. Then one with nothing to find, and one of whom nothing was found.
    """
    truth = block((2, 6), (3, 7), (2, 4))
    for case, columns in zip("abcde", (4, 3, 2, 1, 4), strict=True):
        study.add(case, truth, block((2, 2 + columns), (3, 7), (2, 4)), truth * 100 + ord(case))
    study.add("f", block(), block((1, 4), (1, 4), (5, 6)), truth)
    study.add("g", block((1, 3), (1, 3), (1, 2)), block(), truth)
    return study


# whom, and which slice


def test_best_median_worst_missed_and_false_alarm(five: Study) -> None:
    panels = five.panels()
    # from the best: a and e with 1, b, c, d, then f and g with 0, of whom g has the larger tumour
    assert [("+".join(panel.roles), panel.patient) for panel in panels] == [
        ("best", "a"),
        ("median", "c"),
        ("worst+missed", "g"),
        ("false-alarm", "f"),
    ]
    assert [panel.patient_dice for panel in panels] == [1, pytest.approx(2 / 3), 0, 0]
    # the voxels are 1 mm³: 32 and 16 of them are thousandths of a millilitre
    assert panels[1].view.volumes_ml == pytest.approx((0.032, 0.016))
    assert panels[3].view.slice_index == 5
    assert panels[2].view.slice_index == 1


def test_the_slice_with_most_tumour_is_shown_and_there_its_own_dice(study: Study) -> None:
    truth = block((2, 4), (2, 4), (1, 4))
    truth[2:6, 2:6, 4] = 1
    found = truth.copy()
    found[4:6, 2:6, 4] = 0  # half of the 16 pixels
    study.add("a", truth, found)
    (panel,) = study.panels()
    assert panel.roles == ("only",)
    assert (panel.view.slice_index, panel.view.slices) == (4, 6)
    assert panel.view.dice == pytest.approx(2 * 8 / (16 + 8))
    assert panel.patient_dice == pytest.approx(2 * 20 / (28 + 20))
    caption = words.panel_caption(panel)
    assert "Patient a, slice 4 of 6." in caption
    assert "Dice of the patient 0.83, of this slice 0.67. Volume 0.03 ml, predicted 0.02 ml." in caption
    assert np.array_equal(panel.view.truth, truth[..., 4] > 0)
    assert np.array_equal(panel.view.prediction, found[..., 4] > 0)


def test_of_a_patient_with_several_cases_the_one_with_most_tumour_is_shown(study: Study) -> None:
    study.add("first", block((2, 3), (2, 3), (2, 3)), block((2, 3), (2, 3), (2, 3)))
    study.add("second", block((2, 5), (2, 5), (4, 5)), block((2, 4), (2, 5), (4, 5)))
    (panel,) = study.panels(patients={"first": "p", "second": "p"})
    assert (panel.patient, panel.view.case_id) == ("p", "second")
    assert panel.patient_dice == pytest.approx(2 * 7 / (10 + 7))
    assert "Patient p, case second, slice 4 of 6." in words.panel_caption(panel)


def test_each_class_has_its_own_pictures_and_contours(study: Study) -> None:
    truth = block((1, 4), (1, 4), (1, 2)) + block((6, 9), (6, 8), (3, 4), value=2)
    study.add("a", truth, block((1, 4), (1, 4), (1, 2)))
    panels = study.panels(classes={"core": (1,), "oedema": (2,), "both": (1, 2)})
    found = {panel.label: panel for panel in panels}
    assert {label: panel.view.slice_index for label, panel in found.items()} == {
        "core": 1,
        "oedema": 3,
        "both": 1,
    }
    assert {label: int(panel.view.truth.sum()) for label, panel in found.items()} == {
        "core": 9,
        "oedema": 6,
        "both": 9,
    }
    assert [found[label].roles for label in ("core", "oedema")] == [("only",), ("only", "missed")]
    titles = [part.split("</h4>")[0] for part in study.page().split("<h4>")[1:]]
    assert titles == ["The only patient", "The only patient, missed oedema", "The only patient"]


def test_of_many_classes_the_worst_are_shown_and_the_page_says_so(study: Study) -> None:
    truth = np.zeros(GRID, np.uint8)
    truth.reshape(-1)[: 14 * 10] = np.repeat(np.arange(1, 15), 10)
    found = truth.copy()
    for value in range(3, 15):  # of the first two everything is found
        found.reshape(-1)[(value - 1) * 10] = 0
    study.add("a", truth, found)
    panels = study.panels()
    assert len(panels) == MOST_CLASSES == 12
    assert {panel.label for panel in panels} == {f"label-{value}" for value in range(3, 15)}
    assert study.page().count("No pictures here: they are drawn of the 12 classes") == 2


# images


def test_only_the_chosen_cases_are_read_again(five: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    read = io.read

    def counted(ref: io.ImageRef) -> Any:
        seen["/".join(ref.files[0].parts[-2:]).removesuffix(".nii.gz")] += 1
        return read(ref)

    monkeypatch.setattr(io, "read", counted)
    five.evaluate(images=True, classes={"tumour": (1,)})
    assert {name for name in seen if name.startswith("images/")} == {f"images/{case}" for case in "acfg"}
    assert {name: count for name, count in seen.items() if count > 1} == {
        f"{folder}/{case}": 2 for folder in ("truth", "ours") for case in "acfg"
    }


def test_the_image_of_the_chosen_case_lies_under_the_contours(five: Study) -> None:
    best = five.panels(images=True)[0]
    # two values, of which the tumour's is the brighter one; the other is the background
    assert set(np.unique(best.view.image)) == {0, 255}
    assert np.array_equal(best.view.image == 255, best.view.truth)
    assert best.view.ground.startswith("image, grey from")


def test_without_any_image_the_ground_is_grey(five: Study) -> None:
    panels = five.panels()
    assert {value for panel in panels for value in np.unique(panel.view.image)} == {GREY}
    page = five.page()
    assert page.count("No image is shown.") == len(panels)
    assert page.count('src="data:image/png') == 2 * len(panels)  # both contours, and a close-up
    assert 'alt="Best patient, a: truth and prediction"' in page


def test_an_image_on_another_grid_costs_its_picture_only(five: Study) -> None:
    save(five.root / "images" / "a.nii.gz", np.zeros(GRID, np.int16), np.diag([2.0, 1, 1, 1]))
    (five.root / "images" / "c.nii.gz").write_bytes(b"nothing of the kind")
    (five.root / "images" / "g.nii.gz").unlink()
    panels = {panel.patient: panel.view for panel in five.panels(images=True)}
    assert "Its image is not shown: truth and image must lie on one grid" in panels["a"].note
    assert "Its image is not shown" in panels["c"].note
    assert (panels["g"].ground, panels["g"].note) == ("", "")
    assert panels["f"].note == ""
    assert panels["f"].ground
    rows = (five.root / "out" / "patients.csv").read_text(encoding="utf-8")
    assert ",a,label-1,dice,1.0," in rows
    page = five.page()
    assert page.count("<strong>Note:</strong>") == 2
    assert "must lie on one grid" in page


def test_scores_are_safe_whatever_happens_to_the_pictures(
    five: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("oncoseg.evaluate.pictures.draw", fail)
    with pytest.raises(MemoryError):
        five.evaluate()
    assert json.loads((five.root / "out" / "summary.json").read_text())["patients"] == 7
    assert "Pictures" not in five.page()


def test_a_missing_prediction_leaves_the_truth_alone_and_is_said(study: Study) -> None:
    truth = block((2, 6), (3, 7), (2, 4))
    study.add("a", truth, truth)
    study.add("b", truth, None)
    study.add("c", truth, truth[:3])
    views = {panel.patient: panel.view for panel in study.panels()}
    assert views["a"].note == ""
    assert views["b"].note == "There is no prediction of this case: only the truth is drawn."
    assert views["c"].note.startswith("Its prediction is not shown and counts as missing: truth and predi")
    assert [int(views[case].truth.sum()) for case in "abc"] == [16, 16, 16]
    assert [int(views[case].prediction.sum()) for case in "abc"] == [16, 0, 0]
    assert "only the truth is drawn" in study.page()


def test_a_data_set_brings_its_own_images(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", mri=2, ct=0)["mri"]
    result = evaluate_masks(data, data, tmp_path / "out", workers=0, classes={"enhancing": (4,)})
    (one, other) = result.summary["panels"]
    assert [one["ground"][:10], other["ground"][:10]] == ["T1ce, grey"] * 2
    assert (tmp_path / "out" / "panels.npz").is_file()


def test_pictures_of_phantoms_are_marked(five: Study) -> None:
    (five.root / "images" / SYNTHETIC_NOTE).touch()
    assert five.evaluate(images=True).summary["synthetic"] is True
    assert "Synthetic phantoms: these numbers say nothing about patients" in five.page()


def test_the_flag_of_the_command(five: Study, capsys: pytest.CaptureFixture[str]) -> None:
    truth, ours, images, out = (str(five.root / name) for name in ("truth", "ours", "images", "out"))
    command = ["evaluate", "--prediction", ours, "--truth", truth, "--workers", "0"]
    assert main([*command, "--images", images, "--out", out]) == 0
    assert "image, grey from" in (five.root / "out" / "summary.json").read_text()
    assert (five.root / "out" / "examples.png").is_file()
    (five.root / "other").mkdir()
    save(five.root / "other" / "z.nii.gz", block())
    assert main([*command, "--images", str(five.root / "other"), "--out", out + "2"]) == 2
    assert (
        "belongs to a case. Expected images named as the cases, such as a.nii.gz" in capsys.readouterr().err
    )
    assert not Path(out + "2").exists()
    with pytest.raises(DataError, match="does not exist"):
        evaluate_masks(Path(truth), Path(ours), Path(out + "3"), images=five.root / "nowhere", workers=0)


@pytest.mark.real_data
def test_the_tumour_of_a_real_patient_is_bright_where_its_contour_is(
    shared_data: Path, tmp_path: Path
) -> None:
    for folder in (shared_data / "brats_layout").glob("TCGA-*"):
        (case,) = open_dataset(folder).cases
        mask = io.read(io.ImageRef((next(folder.glob("*seg*.nii.gz")),)))
        # stored from anterior to posterior first, as a sagittal scanner may
        turned_mask = nib.Nifti1Image(mask.array[0], mask.affine_ras).as_reoriented([[2, 1], [0, 1], [1, -1]])
        image = nib.load(case.images["FLAIR"].files[0]).as_reoriented([[2, 1], [0, 1], [1, -1]])
        for name, one in (("truth", turned_mask), ("ours", turned_mask), ("images", image)):
            (tmp_path / name).mkdir(exist_ok=True)
            nib.save(one, tmp_path / name / f"{case.id}.nii.gz")
    study = Study(tmp_path)
    panels = study.panels(images=True, classes={"whole": (1, 2, 4)})
    assert len(panels) == 2
    for view in (panel.view for panel in panels):
        assert view.letters == ("R", "L", "A", "P")
        assert view.pixel_mm == pytest.approx((1, 1))
        brain = view.image[(view.image > 0) & ~view.truth]
        assert np.median(view.image[view.truth]) > 1.3 * np.median(brain)


# how it lies


RIGHT_ANTERIOR = block((8, 11), (6, 9), (2, 5))
"""In the patient's right anterior corner, on a grid along RAS+."""

SPACING_MM = (4.0, 0.9, 2.0)
"""To the patient's right, anterior and superior."""

ORIENTATIONS = {
    "RAS": ("xyz", "+++"),
    "LPS": ("xyz", "--+"),
    "sagittal, PIL": ("yzx", "---"),
    "sagittal, AIL": ("yzx", "+--"),
    "coronal, LIP": ("xzy", "---"),
    "coronal, RSA": ("xzy", "+++"),
    "LAI": ("xyz", "-+-"),
}
"""Name → which of the patient's axes i, j and k run along, and whether towards R, A and S."""


def lying(voxels: np.ndarray, order: str, signs: str) -> tuple[np.ndarray, np.ndarray]:
    """RAS+ voxels and their affine as a scanner stores them in another orientation."""
    axes = ["xyz".index(letter) for letter in order]
    turned_voxels, affine = voxels.transpose(axes), np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (target, sign) in enumerate(zip(axes, signs, strict=True)):
        step = SPACING_MM[target] * (1 if sign == "+" else -1)
        affine[target, axis] = step
        if sign == "-":
            turned_voxels = np.flip(turned_voxels, axis)
            affine[target, 3] = -step * (turned_voxels.shape[axis] - 1)
    return np.ascontiguousarray(turned_voxels), affine


def pixels(panel: Panel, title: str = "Image") -> np.ndarray:
    """A tile of a panel as grey values, axes row and column."""
    (tile,) = [tile for tile in examples.example(panel).tiles if tile.title == title]
    content = base64.b64decode(tile.source.partition(",")[2])
    return np.asarray(Image.open(bytes_io.BytesIO(content)).convert("L")).astype(int)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS.values(), ids=list(ORIENTATIONS))
def test_a_marker_on_the_right_is_drawn_on_the_left_however_it_is_stored(
    study: Study, order: str, signs: str
) -> None:
    mask, affine = lying(RIGHT_ANTERIOR, order, signs)
    study.add("a", mask, mask, mask * 100, affine=affine)
    (panel,) = study.panels(images=True)
    assert panel.view.letters == ("R", "L", "A", "P")
    assert panel.view.pixel_mm == pytest.approx((4, 0.9))
    assert panel.view.slice_index in (2, 3, 4)
    assert np.array_equal(panel.view.truth, RIGHT_ANTERIOR[..., 3] > 0)
    assert np.array_equal(panel.view.image == 255, panel.view.truth)


def test_a_sagittal_acquisition_is_drawn_in_true_proportion(study: Study) -> None:
    marked = np.zeros((15, 60, 6), np.uint8)  # 60 mm by 54 mm
    marked[9:12, 35:50, 3] = 1
    mask, affine = lying(marked, "yzx", "---")
    study.add("a", mask, mask, mask * 100, affine=affine)
    (panel,) = study.panels(images=True)
    tile = pixels(panel._replace(view=panel.view._replace(letters=None)))
    tile[250:, :150] = 0  # the scale bar
    rows, columns = (np.flatnonzero((tile > 128).any(axis=axis)) for axis in (1, 0))
    # the tile of 360 pixels is 60 mm wide; half a voxel is mixed at each edge
    assert np.ptp(columns) + 1 == pytest.approx(3 * 4 * 6, abs=6)
    assert np.ptp(rows) + 1 == pytest.approx(15 * 0.9 * 6, abs=6)
    # voxels 9 to 12 of 15 lie 12 to 24 mm from the right border, 35 to 50 of 60 9 to 22.5 mm from the front
    assert columns[0] == pytest.approx(12 * 6, abs=4)
    assert rows[0] == pytest.approx((360 - 54 * 6) / 2 + 9 * 6, abs=4)


def test_an_oblique_image_has_two_letters_where_the_axes_run_between(study: Study) -> None:
    study.add("a", RIGHT_ANTERIOR, RIGHT_ANTERIOR, affine=turned(2, 20))
    (panel,) = study.panels()
    assert panel.view.letters == ("RA", "LP", "AL", "PR")
    assert np.array_equal(panel.view.truth, RIGHT_ANTERIOR[..., 3] > 0)


def test_slices_without_a_place_have_no_letters_and_no_scale(tmp_path: Path) -> None:
    lidc_nodule(tmp_path / "ct", 7)
    (case,) = open_dataset(tmp_path / "ct").cases
    truth = io.read(case.masks[0])
    io.write_labels(tmp_path / "ours" / f"{case.id}.nii.gz", truth.array[0], truth)
    result = evaluate_masks(tmp_path / "ct", tmp_path / "ours", tmp_path / "out", workers=0)
    (panel,) = read_panels(tmp_path / "out", result.summary["panels"])
    assert (panel.view.letters, panel.view.pixel_mm) == (None, None)
    assert panel.view.ground.startswith("CT, grey from")
    assert "ml" not in words.panel_caption(panel)
    # drawn as the PNG files show it: rows downwards, columns to the right
    shown = panel.view.truth.T[::-1, ::-1]
    first = np.asarray(Image.open(case.masks[0].files[panel.view.slice_index])) > 0
    assert np.array_equal(shown, first)
