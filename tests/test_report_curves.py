"""The plots that both pages share, and the pages that hold them."""

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure

from oncoseg.errors import DataError
from oncoseg.evaluate.curves import CURVES_FILE
from oncoseg.evaluate.long_table import Row
from oncoseg.evaluate.masks import evaluate_masks
from oncoseg.evaluate.result import evaluate_predictions
from oncoseg.report import curves, matrices, operating, words, write_evaluation, write_report
from oncoseg.report.boxes import boxes
from oncoseg.report.distributions import Volumes, bland_altman, histogram
from test_curves import described, patient, some_patients
from test_evaluate import of_two_classes
from test_pairs import GRID, marked
from test_pairs import write as write_mask
from test_report import LOG, Page, make_run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, kept instead of written."""
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "svg_of", lambda figure: figures.append(figure) or b"")
    return figures


def points(figure: Figure, number: int, axes: int = 0) -> list[tuple[float, float]]:
    return [tuple(xy) for xy in figure.axes[axes].lines[number].get_xydata().tolist()]


def span(low: float, high: float) -> str:
    return f"{words.percent(low, 1).removesuffix(' %')}–{words.percent(high, 1)}"


def rows(*values: float, rule: str = "", metric: str = "dice") -> list[Row]:
    return [Row("", "", f"p{n}", "tumour", metric, value, rule) for n, value in enumerate(values)]


FOUR = patient("a", [0.9, 0.3, 0.6, 0.1], [1, 1, 0, 0])


# the plots


def test_roc_of_four_voxels_runs_from_nothing_to_everything(drawn: list[Figure]) -> None:
    plot = operating.roc("roc", {"ours": described([FOUR])})
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "false positive rate (share of background voxels)"
    assert axes.get_ylabel() == "recall (share of tumour voxels)"
    assert points(drawn[0], 0) == [(0, 0), (1, 1)]  # chance
    curve = dict(points(drawn[0], 1)[1:])
    assert points(drawn[0], 1)[0] == (0, 0)
    assert [curve[rate] for rate in (0, 0.25, 0.5, 1)] == [0.5, 0.5, 1, 1]
    assert points(drawn[0], 2) == [(0.5, 0.5)]  # the mask
    assert plot.alt.endswith("Area under the curve: ours 0.750.")
    assert not axes.collections  # a band needs five patients


def test_precision_recall_has_its_axes_band_and_chance(drawn: list[Figure]) -> None:
    part = described(some_patients(6))
    plot = operating.precision_recall("pr", {"ours": part})
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "recall (share of tumour voxels)"
    assert axes.get_ylabel() == "precision (share of marked voxels)"
    assert len(axes.collections) == 1
    chance = 4 / 30
    assert points(drawn[0], 1)[0][1] == pytest.approx(chance)
    assert f"by chance {chance:.2g}" in plot.alt


def test_several_parts_are_told_apart_without_colour(drawn: list[Figure]) -> None:
    parts = {name: described(some_patients(3, seed)) for seed, name in enumerate(("MRI", "CT", "All"))}
    operating.roc("roc", parts)
    lines = [line for line in drawn[0].axes[0].lines if ":" in str(line.get_label())]
    assert len({line.get_linestyle() for line in lines}) == 3


def test_parts_without_a_curve_are_not_drawn(drawn: list[Figure]) -> None:
    healthy = described([patient("a", [0.2, 0.1], [0, 0])])
    assert operating.roc("roc", {"a": healthy}) is None
    assert operating.precision_recall("pr", {"a": healthy}) is None
    assert operating.froc("froc", healthy) is None
    assert operating.reliability("r", described([patient("a", None, [1, 0])])) is None
    operating.roc("roc", {"a": healthy, "b": described([FOUR])})
    assert len(drawn) == 1


def test_reliability_draws_filled_bins_and_their_voxels(drawn: list[Figure]) -> None:
    # of 15 bins 0.1 (background) is in the second, 0.3 (tumour) in the fifth, 0.6 in the ninth, and so on
    plot = operating.reliability("r", described([FOUR]))
    (container,) = drawn[0].axes[0].containers
    assert np.allclose(container.lines[0].get_xydata(), [(0.1, 0), (0.3, 1), (0.6, 0), (0.9, 1)], atol=1e-6)
    heights = [bar.get_height() for bar in drawn[0].axes[1].patches]
    assert (len(heights), sum(heights)) == (15, 4)
    assert "0.30 → 1.00" in plot.alt


def test_froc_reads_luna16s_points(drawn: list[Figure]) -> None:
    found = patient("a", [0.9, 0, 0.8, 0], [1, 0, 0, 0])
    plot = operating.froc("froc", described([found]))
    assert drawn[0].axes[0].get_xscale() == "log"
    assert points(drawn[0], 1) == [(rate, 1.0) for rate in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)]
    assert "1.000 at 0.125" in plot.alt


def test_a_matrix_has_each_count_in_its_place_with_the_interval_of_its_share(drawn: list[Figure]) -> None:
    part = described(some_patients(6))
    plot = matrices.of_voxels("confusion", part["voxels"])
    texts = {tuple(np.floor(text.get_position())): [] for text in drawn[0].axes[0].texts}
    for text in drawn[0].axes[0].texts:
        texts[tuple(np.floor(text.get_position()))].append(text.get_text())
    voxels, recall = part["voxels"], part["voxels"]["recall"]
    assert texts[0, 0][-1] == str(voxels["tp"])
    assert texts[1, 0][-1] == str(voxels["fn"])
    assert texts[0, 1][-1] == str(voxels["fp"])
    assert texts[1, 1][-1] == str(voxels["tn"])
    ends = recall["low"], recall["high"]
    assert texts[0, 0][:2] == [words.percent(voxels["tp"], 24), span(*ends)]
    assert texts[1, 0][1] == span(1 - ends[1], 1 - ends[0])
    assert f"truth tumour: predicted tumour {words.percent(voxels['tp'], 24)}" in plot.alt


def test_a_missing_prediction_has_a_column_of_its_own(drawn: list[Figure]) -> None:
    both = [FOUR, patient("h", [0.1, 0.1], [0, 0])]
    matrices.of_patients("detection", described(both)["detection"])
    matrices.of_patients("detection", described([*both, patient("m", None, [1, 0])])["detection"])
    labels = [[tick.get_text() for tick in figure.axes[0].get_xticklabels()] for figure in drawn]
    assert labels == [["some tumour", "none"], ["some tumour", "none", "no prediction"]]


def test_boxes_hold_the_middle_half_and_show_every_patient(drawn: list[Figure]) -> None:
    values = {
        "dice": rows(0, 0.25, 0.5, 0.75, 1),
        "iou": rows(0.5, math.nan, 0.5),
        "recall": rows(0.1, rule="x"),
    }
    plot = boxes("b", "score", values, "share")
    axes = drawn[0].axes[0]
    (box,) = axes.patches  # fewer than five values have none
    assert (box.get_x(), box.get_x() + box.get_width()) == (0.25, 0.75)
    dots = [collection.get_offsets()[:, 0].tolist() for collection in axes.collections]
    assert dots == [
        [0, 0.25, 0.5, 0.75, 1],
        [],
        [0.5, 0.5],
        [],
        [],
        [0.1],
    ]  # of each metric dots, then crosses
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["dice", "iou (1 undefined)", "recall"]
    assert plot.alt == "score, as boxes and dots. Medians: dice 0.50; iou 0.50; recall 0.10."
    assert plot.broad


def test_whiskers_leave_outliers_outside(drawn: list[Figure]) -> None:
    boxes("b", "lesions", {"false_positive_lesions": rows(0, 1, 1, 1, 1, 2, 40)}, "count")
    ends = {x for line in drawn[0].axes[0].lines for x in line.get_xdata()}
    assert 40 not in ends


def test_distances_are_logarithmic_and_show_zero(drawn: list[Figure]) -> None:
    boxes("b", "distance (mm)", {"hd95_max_mm": rows(0, 1, 5, 20, 374)}, "mm")
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "symlog"
    assert [tick.get_text() for tick in axes.get_xticklabels()][:3] == ["0", "0.5", "1"]
    assert axes.get_xlim()[0] < 0


def test_values_that_are_all_the_same_have_room_around_them(drawn: list[Figure]) -> None:
    boxes("b", "volume_error", {"volume_error": rows(2.0)}, "value")
    assert drawn[0].axes[0].get_xlim() == (1, 3)


def test_so_many_patients_that_dots_become_pixels(drawn: list[Figure]) -> None:
    many = rows(*np.linspace(0, 1, 2_001))
    boxes("b", "score", {"dice": many}, "share")
    boxes("b", "score", {"dice": many[:-1]}, "share")
    assert [figure.axes[0].collections[0].get_rasterized() for figure in drawn] == [True, False]


# the pages


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Truth and predictions of six patients with a map each, of whom the last has no tumour."""
    rng = np.random.default_rng(0)
    for n in range(6):
        truth = marked() if n < 5 else np.zeros(GRID, np.uint8)
        probability = np.clip(0.2 + 0.6 * truth + rng.normal(0, 0.2, GRID), 0, 1).astype(np.float32)
        write_mask(tmp_path / "truth" / f"p{n}.nii.gz", truth)
        write_mask(tmp_path / "ours" / f"p{n}.nii.gz", (probability >= 0.5).astype(np.uint8))
        write_mask(tmp_path / "ours" / f"p{n}_probability.nii.gz", probability)
    return tmp_path / "truth", tmp_path / "ours"


def page_of(folder: Path) -> Page:
    return Page(write_evaluation(folder).read_text(encoding="utf-8"))


PLOTS = ("roc", "precision-recall", "reliability", "confusion", "froc", "detection")


def test_the_page_of_masks_holds_every_plot_with_words_and_a_file(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    evaluate_masks(*folders, tmp_path / "out", classes={"tumour": (1,)}, workers=0)
    page = page_of(tmp_path / "out")
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(image["alt"] for image in page.images)
    files = sorted(path.stem for path in (tmp_path / "out").glob("*.svg"))
    plots = [image for image in page.images if image["src"].startswith("data:image/svg+xml")]
    assert len(files) == len(plots)
    assert {f"{plot}-tumour" for plot in PLOTS} <= set(files)
    for path in (tmp_path / "out").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert "interval from drawing the patients anew (9,999 times, with a fixed seed)" in page.plain
    assert "lesions: share found at 1/8 false positives per case" in page.plain
    assert "Whether any voxel is marked at all." in page.plain


def test_a_map_that_is_missing_in_one_of_several_cases_is_said(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (folders[1] / "p1_probability.nii.gz").unlink()
    evaluate_masks(*folders, tmp_path / "out", classes={"tumour": (1,)}, workers=0)
    page = page_of(tmp_path / "out")
    assert (
        "1 case has no probability map that can be used: by the policy their tumour voxels count"
        in page.plain
    )
    assert "in 5 cases." in page.plain  # the FROC curve's


@pytest.mark.parametrize("patients", [1, 3])
def test_few_patients_without_tumour_have_a_page(tmp_path: Path, patients: int) -> None:
    for n in range(patients):
        write_mask(tmp_path / "truth" / f"p{n}.nii.gz", np.zeros(GRID, np.uint8))
        write_mask(tmp_path / "ours" / f"p{n}.nii.gz", np.zeros(GRID, np.uint8))
        write_mask(tmp_path / "ours" / f"p{n}_probability.nii.gz", np.full(GRID, 0.25, np.float32))
    evaluate_masks(
        tmp_path / "truth", tmp_path / "ours", tmp_path / "out", classes={"tumour": (1,)}, workers=0
    )
    page = page_of(tmp_path / "out")
    assert page.open == []
    assert "There is no ROC and no precision–recall curve: no tumour in the truth" in page.plain
    assert "There is no FROC curve: no lesion" in page.plain
    assert "Undefined for every patient, and not drawn: dice" in page.plain
    assert not list((tmp_path / "out").glob("roc-*"))


def test_an_evaluation_without_its_curves_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate_masks(*folders, tmp_path / "out", workers=0)
    (tmp_path / "out" / CURVES_FILE).unlink()
    with pytest.raises(DataError, match=r"cannot be shown.*Make it again with oncoseg evaluate"):
        write_evaluation(tmp_path / "out")


def test_a_run_with_two_classes_shows_each_and_all_together_last(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.log.write_text(LOG)
    folder.write_metrics({"finished": True})
    cases = [
        of_two_classes("a", "1120", [0.9, 0.2, 0.3, 0.1], [0.1, 0.25, 0.7, 0.2]),
        of_two_classes("b", "0011", [0.1, 0.1, 0.7, 0.9], [0.2, 0.1, 0.3, 0.1]),
    ]
    replace(evaluate_predictions(cases, 0.5), split="test").write(folder.path / "evaluation" / "test")
    page = Page(write_report(folder.path).read_text(encoding="utf-8"))
    assert page.open == []
    headings = re.findall(r'<h3 id="part-[^"]+">([^<]+)</h3>', page.text)
    assert headings == ["MRI oedema", "MRI core", "MRI all classes together"]
    assert page.text.index("Table 1.") < page.text.index("<h3")  # the paper's own comes first
    assert not (folder.path / "report" / "roc.svg").exists()  # of several modalities only
    for name in ("oedema", "core", "all-classes-together"):
        assert (folder.path / "report" / f"roc-mri-{name}.svg").is_file()
    assert "Policy: strict" in page.plain
    for metric in ("hd95_max_mm", "lesion_f1", "calibration_error"):
        assert f'<th scope="row">{metric}</th>' in page.text


def test_every_rule_that_touched_a_patient_is_counted_on_a_runs_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.log.write_text(LOG)
    folder.write_metrics({"finished": True})
    cases = [
        of_two_classes("a", "1100", [0.1] * 4, [0.2] * 4),
        of_two_classes("b", "0000", [0.1] * 4, [0.2] * 4),
    ]
    replace(evaluate_predictions(cases, 0.5), split="test").write(folder.path / "evaluation" / "test")
    text = write_report(folder.path).read_text(encoding="utf-8")
    assert "prediction_empty 1, both_empty 1" in text


@pytest.mark.slow
def test_a_two_class_recipe_goes_from_training_to_its_page(tmp_path: Path) -> None:
    from oncoseg.evaluate import long_table
    from oncoseg.evaluate.run import evaluate_run
    from oncoseg.train import train
    from tiny import tiny_data, tiny_recipe

    classes = {"rest": ["oedema", "necrotic core"], "enhancing": ["enhancing tumour"]}
    recipe = tiny_recipe(classes=classes, training__max_epochs=1).with_only(["mri"])
    data = {"mri": tiny_data(tmp_path / "data", ct=0)["mri"]}
    for path in data["mri"].glob("*/*_seg.nii.gz"):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj).copy()
        voxels[::2][voxels[::2] > 0] = 2
        nib.Nifti1Image(voxels, image.affine).to_filename(path)
    run = train(recipe, data, tmp_path / "run", store=tmp_path / "store", workers=0).run
    written = evaluate_run(run)
    labels = dict.fromkeys(row.label for row in long_table.read(written))
    assert list(labels) == ["rest", "enhancing", "all classes together"]
    text = write_report(run).read_text(encoding="utf-8")
    names = ("rest", "enhancing", "all-classes-together")
    assert [f'id="part-mri-{name}"' in text for name in names] == [True, True, True]


def test_every_axis_of_every_plot_has_a_title_with_a_unit(drawn: list[Figure]) -> None:
    part = described(some_patients(6))
    operating.roc("roc", {"ours": part})
    operating.precision_recall("pr", {"ours": part})
    operating.reliability("reliability", part)
    operating.froc("froc", part)
    histogram("histogram", "dice", [0.1, 0.2])
    bland_altman("volumes", [Volumes("a", 1.0, 2.0)])
    log = [
        {"stage": "joint", "epoch": 1, "modality": "mri"}
        | {f"{side}_{what}": 0.5 for side in ("train", "validation") for what in ("loss", "dice")}
    ]
    curves.learning_curves(log, ["mri"])
    assert len(drawn) == 8
    for figure in drawn:
        *above, lowest = figure.axes
        for axes in (*above, lowest):
            assert re.search(r"\(.+\)$|^number of", axes.get_ylabel()), axes.get_ylabel()
        assert re.search(r"\(.+\)$", lowest.get_xlabel()), lowest.get_xlabel()


def test_a_long_title_stays_within_its_plot(drawn: list[Figure]) -> None:
    part = described(some_patients(6))
    lost = "12 of 1251 patients' masks missing: not comparable"
    matrices.of_voxels("m", part["voxels"] | {"not_comparable": lost})
    (axes,) = drawn[0].axes
    drawn[0].draw_without_rendering()
    assert lost in axes.get_title(loc="left").replace("\n", " ")
    assert axes.title.get_window_extent().x1 <= drawn[0].bbox.x1
    assert axes._left_title.get_window_extent().x1 <= drawn[0].bbox.x1


def test_an_axis_of_counts_shows_none_below_zero(drawn: list[Figure]) -> None:
    boxes("b", "false_positive_lesions (lesions)", {"false_positive_lesions": rows(0, 0, 0)}, "count")
    (axes,) = drawn[0].axes
    low, high = axes.get_xlim()
    assert -0.1 < low < 0 < high
    assert all(tick >= 0 for tick in axes.get_xticks() if low <= tick <= high)
