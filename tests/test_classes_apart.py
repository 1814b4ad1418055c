"""Several classes: each stands on its own in tables, words, pictures and tests, all of them together last."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from oncoseg.case_prediction import CasePrediction, ClassMaps
from oncoseg.cli.scores import print_scores
from oncoseg.errors import RunError
from oncoseg.evaluate import long_table
from oncoseg.evaluate.compare import Contest, compare
from oncoseg.evaluate.contest_files import short_heading
from oncoseg.evaluate.long_table import Row
from oncoseg.evaluate.overlap_table import overlap_table
from oncoseg.evaluate.panels import Panel, read_panels, view_at
from oncoseg.evaluate.result import Evaluation, evaluate_predictions
from oncoseg.evaluate.run import class_to_show
from oncoseg.files import write_json
from oncoseg.recipes import get_recipe
from oncoseg.report import examples, words, write_report
from oncoseg.report.study import _patients, titles
from oncoseg.report.study_plots import row_name
from oncoseg.run_folder import RunFolder
from oncoseg.study_results import FigureRow
from test_report import Page, tile

TOGETHER, PAPER = "all classes together", "paper, other data"
LIVER, TUMOUR = 1, 2


def case(patient: str, tumour_found: int = 0) -> CasePrediction:
    """Three slices of 6×6: 20 voxels of liver in the first, 4 of liver and 1 of tumour in the last.

    All is marked as liver, but for the tumour's voxel where it is found.
    """
    truth = np.zeros((6, 6, 3), np.uint8)
    truth[:4, :5, 0] = LIVER
    truth[:4, 0, 2] = LIVER
    truth[4, 0, 2] = TUMOUR
    found = np.where(truth > 0, TUMOUR if tumour_found else LIVER, 0)
    found[truth == LIVER] = LIVER
    each = np.stack([np.where(found == index, 0.9, 0.1) for index in (LIVER, TUMOUR)]).astype(np.float32)
    image = np.full(truth.shape, 0.5, np.float32)
    maps = ClassMaps(("liver", "tumour"), truth, each)
    spacing = (1.0, 1.0, 1.0)
    return CasePrediction(patient, patient, "ct", image, truth > 0, each.max(axis=0), spacing, classes=maps)


def evaluated(**options) -> Evaluation:
    """Two patients, in neither of whom the tumour is found."""
    return evaluate_predictions([case("a"), case("b")], 0.5, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("run") / "liver")
    recipe = get_recipe("residual-attention-liver")
    folder.write_recipe(recipe)
    folder.write_split(0, {"ct": {"train": {"x": ["x"]}, "validation": {"y": ["y"]}, "test": {"a": ["a"]}}})
    folder.write_data({"ct": {"path": "liver", "layout": "decathlon"}})
    folder.log.write_text(
        "stage,epoch,modality,train_loss,train_dice,validation_loss,validation_dice,macro_dice,learning_rate,"
        "minutes\njoint,1,ct,0.8,0.2,0.8,0.2,0.2,0.0001,2\n"
    )
    folder.write_metrics({"finished": True})
    found = evaluated(published=recipe.published, shown=class_to_show(recipe))
    replace(found, split="test").write(folder.path / "evaluation" / "test")
    return folder


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Page:
    return Page(write_report(run.path).read_text(encoding="utf-8"))


# tables


def test_a_tumour_that_is_missed_is_not_hidden_by_the_liver_around_it() -> None:
    found = evaluated()
    assert found.classes == ["liver", "tumour", TOGETHER]
    dice = {label: found.row("ct", label=label).scores["dice"].mean for label in found.classes}
    # of the liver 24 voxels are right and one too many; of the tumour none; together all 25
    assert dice == {"liver": pytest.approx(48 / 49), "tumour": 0, TOGETHER: 1}
    assert found.row("ct", "slice", "tumour").scores["dice"].n == 2  # only the last slice has any
    assert found.row("ct", label="tumour").prediction_empty == 2
    assert found.row("ct", label=TOGETHER).prediction_empty == 0


def test_every_row_of_the_files_says_of_which_class_it_is(tmp_path: Path) -> None:
    evaluated().write(tmp_path)
    for name, rows in (("per_patient.csv", 2 * 3), ("per_slice.csv", 2 * 3 * 3)):
        header, *lines = (tmp_path / name).read_text().splitlines()
        assert header.startswith("class,modality,patient,")
        assert len(lines) == rows
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(dict.fromkeys(row["class"] for row in summary["table"])) == ["liver", "tumour", TOGETHER]
    assert summary["format_version"] == 5


def test_files_of_one_class_are_as_they_were(tmp_path: Path) -> None:
    evaluate_predictions([case("a")._replace(classes=None)], 0.5).write(tmp_path)
    assert (tmp_path / "per_patient.csv").read_text().startswith("modality,patient,cases,slices,tp,")
    assert (tmp_path / "per_slice.csv").read_text().startswith("modality,patient,case,slice,tp,")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["format_version"] == 4
    assert "class" not in summary["table"][0]
    assert {"classes", "focus"}.isdisjoint(summary["panels"][0])


def test_tables_for_papers_have_the_papers_figure_below_its_own_class(run: RunFolder) -> None:
    folder = run.path / "evaluation" / "test"
    rows = [line.split(" | ")[:4] for line in (folder / "summary.md").read_text().splitlines()]
    told = [(row[0].removeprefix("| "), row[1], row[3]) for row in rows if len(row) == 4][1:]
    names = [f"{title}, {averaging}" for title, averaging, _ in told if averaging in ("patient", PAPER)]
    assert names == [
        "ct, liver, patient",
        f"ct, liver, {PAPER}",
        "ct, tumour, patient",
        f"ct, tumour, {PAPER}",
        f"ct, {TOGETHER}, patient",
    ]
    assert ("ct, tumour", "patient", "0.000") in told
    assert ("ct, tumour", PAPER, "0.73") in told
    latex = (folder / "summary.tex").read_text()
    assert latex.index("ct, liver & paper") < latex.index("ct, tumour & patient")
    for text in (latex, (folder / "summary.md").read_text()):
        assert "says nothing of a class that is small beside another" in text


def test_the_screen_has_a_table_for_each_class(run: RunFolder, capsys) -> None:
    print_scores(run.path / "evaluation" / "test")
    said = capsys.readouterr().out
    places = [said.index(title) for title in ("ct, liver", "ct, tumour", f"ct, {TOGETHER}")]
    assert places == sorted(places)
    of_tumour = said[places[1] : places[2]]
    assert re.search(r"dice +0\.000 .* 0\.73 ", of_tumour)
    assert "0.88" not in of_tumour
    assert "0.73" not in said[places[2] :]


def test_overlap_of_slices_is_there_for_each_class(tmp_path: Path) -> None:
    rows = overlap_table(evaluated().write(tmp_path))
    dice = {
        (row.label, row.averaging): row.scores["dice"].mean
        for row in rows
        if row.averaging in ("patient", "slice")
    }
    # liver: the first slice is perfect, on the last 4 are right and 1 too many
    assert dice["liver", "slice"] == pytest.approx((1 + 8 / 9) / 2)
    assert dice["tumour", "slice"] == dice["tumour", "patient"] == 0
    assert dice[TOGETHER, "slice"] == 1


# the report


def test_the_summary_speaks_of_each_class_by_its_name(page: Page) -> None:
    summary = page.plain[: page.plain.index("Split by patient")]
    assert "CT, liver: mean Dice per patient 0.98" in summary
    assert "CT, tumour: mean Dice per patient 0.00" in summary
    assert TOGETHER not in summary
    assert "On average 96 % of what is marked as liver is liver, and 100 % of the liver is marked." in summary
    assert "Nothing is marked as tumour. In 2 of 2 patients with tumour, none of it was found." in summary
    assert "In every patient with tumour" not in summary


def test_a_class_that_is_marked_wrongly_is_told_with_its_share() -> None:
    none = {"n": 0, "mean": None, "median": None, "low": None, "note": ""}
    dice = {"n": 1, "mean": 0.6, "median": 0.6, "low": None, "note": "no interval"}
    scores = {"dice": dice, "precision": {"mean": 0.25}, "recall": none | {"n": 1, "mean": 1.0}}
    row = {"scores": scores, "units": 1, "truth_empty": 0}
    of_patient = {"tp": 1, "fp": 3, "fn": 0}
    said = words.in_words("ct", row, [of_patient], "cyst")
    assert said.startswith("CT, cyst: in 1 patient ")
    assert "On average 25 % of what is marked as cyst is cyst, and 100 % of the cyst is marked." in said
    of_one = words.in_words("ct", row, [of_patient])
    assert "On average 25 % of what is marked is tumour, and 100 % of the tumour is marked." in of_one


def test_table_1_has_the_papers_figure_below_its_own_class(page: Page) -> None:
    table = page.plain[page.plain.index("Table 1.") : page.plain.index("What the columns mean")]
    liver, tumour, together = (
        table.index(f"CT, {label} per patient") for label in ("liver", "tumour", TOGETHER)
    )
    assert liver < table.index("paper, liver, other data – 0.88") < tumour
    assert tumour < table.index("paper, tumour, other data – 0.73") < together
    assert table.count("paper,") == 2


def test_patients_dots_and_empty_masks_are_listed_class_by_class(page: Page, run: RunFolder) -> None:
    empty = page.plain[page.plain.index("How many units") :]
    assert "CT, tumour patients 2 0 0 2" in empty
    assert f"CT, {TOGETHER} patients 2 0 0 0" in empty
    listed = page.plain[page.plain.index("Every patient, class by class, worst Dice first.") :]
    rows = re.findall(rf"([ab]) CT (liver|tumour|{TOGETHER}) (0\.\d\d|1\.00)", listed)
    assert [row[1:] for row in rows[:6]] == [("liver", "0.98")] * 2 + [("tumour", "0.00")] * 2 + [
        (TOGETHER, "1.00")
    ] * 2
    dots = (run.path / "report" / "patients.svg").read_text()
    assert dots.index("CT, liver") < dots.index("CT, tumour") < dots.index(f"CT, {TOGETHER}")


def test_figures_are_numbered_in_order(page: Page) -> None:
    numbers = re.findall(r"Fig\. (\d)\.", page.plain)
    assert numbers == ["1", "2"]


def test_an_evaluation_that_hid_the_classes_is_not_shown(run: RunFolder, tmp_path: Path) -> None:
    old = tmp_path / "old"
    replace(evaluated(), split="test").write(old)
    summary = json.loads((old / "summary.json").read_text())
    write_json(old / "summary.json", summary | {"format_version": 4})
    with pytest.raises(RunError, match="made by another version of oncoseg, format 4"):
        write_report(run.path, old)


# pictures


def test_pictures_are_chosen_by_the_recipes_tumour(run: RunFolder, page: Page) -> None:
    folder = run.path / "evaluation" / "test"
    panels = read_panels(folder, json.loads((folder / "summary.json").read_text())["panels"])
    assert {(panel.label, panel.view.slice_index) for panel in panels} == {("tumour", 2)}
    assert {role for panel in panels for role in panel.roles} >= {"best", "worst", "missed"}
    for panel in panels:
        assert panel.view.classes == ("liver", "tumour")
        assert panel.view.truth.sum() == 1
        assert not panel.view.prediction.any()
        assert [tuple(mask.sum() for mask in both) for both in panel.view.masks()] == [(4, 5), (1, 0)]
        assert panel.view.volumes_ml == (0.001, 0)
        assert panel.view.dice == panel.patient_dice == 0
    assert "missed tumour" in page.plain
    assert "All this is by one class, tumour: the one that the recipe names as its tumour" in page.plain
    keys = ("liver truth", "liver prediction", "tumour truth", "tumour prediction")
    assert " ".join(keys) in page.plain


@pytest.mark.parametrize(
    ("named", "label", "slice_index"), [(None, "tumour", 2), ("liver", "liver", 0), ("tumour", "tumour", 2)]
)
def test_without_a_name_the_smallest_class_chooses(named, label: str, slice_index: int) -> None:
    for panel in evaluated(shown=named).panels:
        assert (panel.label, panel.view.slice_index) == (label, slice_index)


def test_a_class_that_no_truth_has_does_not_choose() -> None:
    maps = case("a").classes
    without = np.where(maps.truth == TUMOUR, LIVER, maps.truth)
    one = case("a")._replace(classes=maps._replace(truth=without), truth=without > 0)
    assert {panel.label for panel in evaluate_predictions([one], 0.5).panels} == {"liver"}


def test_slices_of_many_classes_keep_every_index() -> None:
    names = tuple(f"c{number}" for number in range(1, 21))
    truth = np.arange(21, dtype=np.uint8).reshape(21, 1, 1)
    shown = view_at(0, "a", truth, truth[::-1], None, classes=names, focus="c20")
    true, predicted = shown.labels
    assert np.array_equal(true[:, 0], np.arange(21))
    assert np.array_equal(predicted[:, 0], np.arange(21)[::-1])
    assert not shown.of_truth_alone().prediction.any()


def has_colour(pixels: np.ndarray, colour: str) -> bool:
    return bool((np.abs(pixels - 255 * np.array(to_rgb(colour))).max(axis=2) < 12).any())


def test_outlines_of_truth_and_prediction_both_show_where_they_coincide() -> None:
    labels = np.zeros((12, 12, 1), np.uint8)
    labels[1:6, 1:11], labels[7:11, 1:11] = 1, 2
    view = view_at(0, "a", labels, labels, None, classes=("one", "two"), focus="two").over(
        labels[..., 0] * 0, ""
    )
    pixels = tile(examples.CONTOURS, view)
    for dark, light in examples.CLASS_COLOURS[:2]:
        assert has_colour(pixels, dark)
        assert has_colour(pixels, light)
    assert not has_colour(pixels, examples.CLASS_COLOURS[2][0])
    colours = [key.colour for key in examples.keys([view])]
    assert colours == [colour for pair in examples.CLASS_COLOURS[:2] for colour in pair]


# tests between networks


def contest(folder: Path, *extra: str) -> Contest:
    """Two networks on eight patients, by two metrics of liver, tumour and both together."""
    folders = {}
    for name, less in (("first", 0.0), ("second", 0.1)):
        rows = [
            Row("ct", "", f"p{number}", label, metric, 0.8 + number / 100 - less, "")
            for number in range(8)
            for label in ("liver", "tumour", TOGETHER)
            for metric in ("dice", "surface_dice")
        ]
        folders[name] = folder / name
        folders[name].mkdir(parents=True)
        long_table.write(folders[name], long_table.PATIENTS, rows)
        write_json(folders[name] / "summary.json", {"scoring": {"policy": "strict"}})
    return compare(folders, metrics=("dice", "surface_dice"))


def test_all_classes_together_are_no_part_of_the_tests(tmp_path: Path) -> None:
    found = contest(tmp_path)
    assert [short_heading(found, part) for part in found.parts] == [
        "liver dice",
        "liver surface_dice",
        "tumour dice",
        "tumour surface_dice",
    ]
    comparisons = [each for part in found.parts for each in part.comparisons]
    assert {each.family for each in comparisons} == {4}
    # 2/2⁸ times 4 by Holm
    assert comparisons[0].p_adjusted == pytest.approx(4 * 2 / 2**8)


# the page of a study


@pytest.mark.parametrize(
    ("group", "modality", "name"), [("CT", "ct", "CT"), ("both", "ct", "both\nCT"), ("FLAIR", "mri", "FLAIR")]
)
def test_a_row_of_the_figure_names_its_modality_once(group: str, modality: str, name: str) -> None:
    shown = view_at(0, "a", *2 * (np.zeros((2, 2, 1), bool),), None)
    assert row_name(FigureRow(group, None, Panel(modality, "tumour", ("only",), "a", 1.0, shown), {})) == name


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (0.0034, 1, "0.0034"),
        (0.04, 1, "0.040"),
        (0.5, 1, "0.50"),
        (3.21, 1, "3.2"),
        (123.4, 1, "123.4"),
        (0.00012, 2, "0.00012"),
        (6.5, 2, "6.50"),
        (0, 1, "0.0"),
        (float("nan"), 1, "–"),
    ],
)
def test_small_costs_keep_two_digits(value: float, digits: int, said: str) -> None:
    assert words.measured(value, digits) == said


def study_of(*labels: str) -> SimpleNamespace:
    """What the page of a study asks of its results: a network with these classes, and a paper's figure."""
    overlap = [SimpleNamespace(modality="ct", label=label, averaging="patient") for label in labels]
    network = SimpleNamespace(variant="net", overlap=overlap, printed={"dice": 0.9}, trainings=[None])
    study = SimpleNamespace(seeds=(), several=False)
    return SimpleNamespace(study=study, results=[network], of_group=lambda group: [network])


def test_table_1_of_a_study_names_the_class_and_prints_the_paper_beside_all_of_them() -> None:
    several, one = study_of("liver", "tumour", TOGETHER), study_of("tumour")
    assert titles(several)["miou_foreground"] == "mIoU of the class"
    assert titles(one)["miou_foreground"] == "mIoU, tumour"
    rows = {row["name"]: row["printed"] for row in _patients(several, "CT")}
    assert rows == {"net, liver": {}, "net, tumour": {}, f"net, {TOGETHER}": {"dice": 0.9}}
    assert [(row["name"], row["printed"]) for row in _patients(one, "CT")] == [("net", {"dice": 0.9})]
