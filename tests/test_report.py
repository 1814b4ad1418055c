import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from oncoseg.case_prediction import CasePrediction
from oncoseg.display import Letters
from oncoseg.errors import RunError
from oncoseg.evaluate.panels import IN_PREDICTION, Panel, View, view_at
from oncoseg.evaluate.result import evaluate_predictions
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe
from oncoseg.report import curves, examples, words, write_report
from oncoseg.report.contents import read_log, read_run
from oncoseg.run_folder import RunFolder

LOG = """\
stage,epoch,modality,train_loss,train_dice,validation_loss,validation_dice,macro_dice,learning_rate,minutes
pretrain,1,ct,0.9,0.1,0.9,0.1,0.1,0.0001,1
joint,1,mri,0.8,0.2,0.8,nan,0.2,0.0001,2
joint,1,ct,0.8,0.2,0.8,0.2,0.2,0.0001,2
"""
PLOTS = ("roc", "precision-recall", "reliability", "confusion", "froc", "volumes")
AXES = ("share", "mm", "volume_difference_ml", "volume_error", "false_positive_lesions")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.open, self.images, self.ids, self.links, self.words = text, [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[name] for name in ("href", "src", "aria-labelledby") if name in values]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def plain(self) -> str:
        return " ".join(" ".join(self.words).split())


def prediction(patient: str, modality: str, found: int) -> CasePrediction:
    """A square of 4×4 voxels in the first of two slices, of which the first `found` columns are predicted."""
    truth = np.zeros((12, 10, 2), bool)
    truth[3:7, 3:7, 0] = True
    probability = np.full(truth.shape, 0.1, np.float32)
    probability[3 : 3 + found, 3:7, 0] = 0.9
    image = np.linspace(0, 1, truth.size, dtype=np.float32).reshape(truth.shape)
    return CasePrediction(f"{patient}-1", patient, modality, image, truth, probability, (1.0, 1.0, 5.0))


def make_run(path, recipe: Recipe | None = None) -> RunFolder:
    folder = RunFolder(path)
    folder.write_recipe(recipe or get_recipe("unified-mri-ct"))
    sides = {"train": {"a": ["a1", "a2"]}, "validation": {"b": ["b"]}, "test": {"c": ["c"]}}
    folder.write_split(0, {"mri": sides, "ct": sides})
    folder.write_data({name: {"path": str(path / name), "layout": name} for name in ("mri", "ct")})
    return folder


def finish_run(folder: RunFolder, **described) -> None:
    folder.log.write_text(LOG)
    folder.write_metrics({"finished": True, "minutes": 7.5, "hardware": {"threads": 2}})
    cases = [prediction(f"m{i}", "mri", found) for i, found in enumerate((4, 3, 3, 2, 4))]
    cases += [prediction(f"c{i}", "ct", found) for i, found in enumerate((4, 0))]
    evaluation = evaluate_predictions(cases, 0.5, folder.recipe().published)
    replace(evaluation, split="test", **described).write(folder.path / "evaluation" / "test")


def page_of(folder: RunFolder) -> Page:
    return Page(write_report(folder.path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Page:
    folder = make_run(tmp_path_factory.mktemp("run") / "first")
    finish_run(folder)
    return page_of(folder)


def test_the_page_is_well_formed_and_needs_nothing_else(complete):
    assert complete.open == []
    assert len(complete.ids) == len(set(complete.ids))
    for link in complete.links:
        assert link.startswith("data:") or link.removeprefix("#") in complete.ids
    assert "<script" not in complete.text
    assert "http" not in re.sub(r"data:[^\"]*", "", complete.text)


def test_every_picture_says_what_it_shows(complete):
    assert all(image["alt"] for image in complete.images)
    # loss and Dice per modality, strip, ROC, precision–recall, and three tiles per example
    examples = 3 + 2
    # boxes (shares, mm, volumes, their error, false lesions), volumes, ROC, precision–recall, reliability,
    # confusion matrix, FROC; three histograms more where there are five patients
    of_modality = 5 + 1 + 4 + 1
    assert len(complete.images) == 4 + 1 + 2 + 3 * examples + 2 * of_modality + 3


def test_the_headline_table_says_that_few_patients_give_rough_intervals(complete):
    caption = complete.plain[complete.plain.index("Table 1.") :]
    caption = caption[: caption.index("Averaging")]
    assert "Intervals from fewer than 10 patients are rough (here from 5)" in caption
    assert "none from fewer than 5" in caption


def test_the_table_has_our_figures_and_the_papers(complete):
    mean = (1 + 2 * (6 / 7) + 2 / 3 + 1) / 5
    assert f"per patient 5 {mean:.2f}" in complete.plain
    assert "paper, other data – 0.83 0.80 0.86 0.92 0.84 0.97" in complete.plain
    assert "All together" in complete.plain
    for said in (
        "other data",
        "Harmonic mean",
        "left out of the mean",
        "every patient",
        "threshold in use, 0.5",
    ):
        assert said in complete.plain


def test_the_summary_speaks_of_patients(complete):
    assert f"mean Dice of {(1 + 2 * (6 / 7) + 2 / 3 + 1) / 5:.2f} (95 % interval" in complete.plain
    assert "no interval: 2 patients" in complete.plain
    assert "In 1 of 2 patients with tumour, none of it was found." in complete.plain
    assert "Synthetic" not in complete.plain
    assert "To go on" not in complete.plain


def test_patients_are_listed_worst_first(complete):
    section = complete.text.partition('<h2 id="patients">')[2].partition("</section>")[0]
    listed = re.findall(r'<th scope="row">(\w\d)</th>', section)
    assert (listed[0], listed[1]) == ("c1", "m3")
    assert sorted(listed) == ["c0", "c1", "m0", "m1", "m2", "m3", "m4"]


def test_a_run_without_anything_says_what_to_do(tmp_path):
    folder = make_run(tmp_path / "run")
    page = page_of(folder)
    assert page.open == []
    assert f"oncoseg train --resume --out {folder.path}" in page.plain
    assert f"oncoseg evaluate {folder.path} --split test" in page.plain
    assert not page.images
    assert set(page.links) - {f"#{name}" for name in page.ids} <= set(page.ids)


def test_an_unfinished_log_is_drawn_and_said_to_be_unfinished(tmp_path):
    folder = make_run(tmp_path / "run")
    folder.log.write_text(LOG + "joint,2,mri,0.7")
    folder.write_metrics({"finished": False})
    page = page_of(folder)
    assert "Training is not finished; the log ends after joint epoch 1." in page.plain
    assert len(page.images) == 4


def test_changed_weights_are_noticed(tmp_path):
    folder = make_run(tmp_path / "run")
    finish_run(folder)
    evaluated = folder.path / "evaluation" / "test"
    folder.model.write_bytes(b"new")
    summary = (evaluated / "summary.json").read_text()
    (evaluated / "summary.json").write_text(summary.replace('"weights": null', '"weights": "old"'))
    assert "The weights have changed since" in read_run(folder.path).notices[0].text


def test_an_evaluation_that_lies_elsewhere_is_shown_beside_itself(tmp_path):
    folder = make_run(tmp_path / "run")
    finish_run(folder)
    other = tmp_path / "other"
    evaluated = evaluate_predictions([prediction("m9", "mri", 2)], 0.25)
    replace(evaluated, split="validation", weights="").write(other)
    page = write_report(folder.path, other)
    assert page == other / "report" / "index.html"
    assert "These are patients of the validation side" in Page(page.read_text(encoding="utf-8")).plain
    assert not (folder.path / "report").exists()
    (other / "summary.json").write_text('{"format_version": 1}')
    with pytest.raises(RunError, match=f"of masks, not of a run.*--out {other} --replace"):
        write_report(folder.path, other)


def test_the_confusion_matrix_has_its_counts_in_their_places(complete):
    # MRI: of 5 × 16 voxels 4 × (4 + 3 + 3 + 2 + 4) found, none marked wrongly, 5 × 224 of background
    (matrix, _) = [image["alt"] for image in complete.images if image["alt"].startswith("Confusion")]
    assert re.fullmatch(
        r"Confusion matrix of voxels\. truth tumour: predicted tumour 80\.0 % \([\d.–]+ %\), 64, "
        r"predicted background 20\.0 % \([\d.–]+ %\), 16; truth background: "
        r"predicted tumour 0 % \(no interval\), 0, predicted background 100 % \(no interval\), 1120\.",
        matrix,
    )


def test_a_substituted_channel_is_said(tmp_path):
    folder = make_run(tmp_path / "run")
    folder.write_data({"mri": {"substituted_channels": {"T2": "FLAIR"}}, "ct": {}})
    assert "Missing channel: T2 taken from FLAIR." in page_of(folder).plain


def test_every_figure_is_a_file_beside_the_page(tmp_path):
    folder = make_run(tmp_path / "run")
    finish_run(folder)
    page = write_report(folder.path)
    assert {path.name for path in page.parent.iterdir()} == {
        "index.html",
        *(f"learning-{modality}-{what}.svg" for modality in ("mri", "ct") for what in ("loss", "dice")),
        *("roc.svg", "precision-recall.svg", "patients.svg", "examples.png"),
        *(f"{kind}-{modality}-tumour.svg" for modality in ("mri", "ct") for kind in PLOTS),
        *(f"spread-{modality}-tumour-{axis}.svg" for modality in ("mri", "ct") for axis in AXES),
        *(f"histogram-mri-tumour-{metric}.svg" for metric in ("dice", "surface_dice", "lesion_f1")),
    }
    for path in page.parent.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert base64.b64encode(path.read_bytes()).decode() in page.read_text(encoding="utf-8")
    with Image.open(page.with_name("examples.png")) as image:  # a row per modality, three tiles each
        assert image.size == (3 * 360, 2 * 360 + 120)


def test_a_run_without_anything_has_no_figures(tmp_path):
    page = write_report(make_run(tmp_path / "run").path)
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_phantoms_get_a_banner(tmp_path):
    folder = make_run(tmp_path / "run")
    folder.write_data({"mri": {"synthetic": True}, "ct": {}})
    assert "Synthetic phantoms: these numbers say nothing about patients" in page_of(folder).plain
    folder.write_data({"mri": {"synthetic": False}, "ct": {}})
    assert "Synthetic phantoms" not in page_of(folder).plain
    finish_run(folder, synthetic=True)
    assert "Synthetic phantoms: these numbers" in page_of(folder).plain


def test_problems_of_the_data_are_said(tmp_path):
    folder = make_run(tmp_path / "run")
    problems = [{"kind": "gap", "case": case, "message": f"Case {case} lacks a slice."} for case in "ab"]
    folder.write_data({"mri": {"problems": problems, "without_truth": 3}, "ct": {"problems": []}})
    said = page_of(folder).plain
    assert (
        "Case a lacks a slice. (the first of 2 such problems) 3 cases without a mask were left out." in said
    )


def test_mirror_averaging_is_said(tmp_path):
    folder = make_run(tmp_path / "run")
    finish_run(folder)
    assert "averaged over the four mirror images" not in page_of(folder).plain
    finish_run(folder, prediction={"flips": True})
    assert "averaged over the four mirror images" in page_of(folder).plain


def test_text_from_files_is_escaped(tmp_path):
    recipe = get_recipe("unified-mri-ct").with_changes({"title": "<script>alert(1)</script>"})
    folder = make_run(tmp_path / "run", recipe)
    text = write_report(folder.path).read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_settings_that_differ_from_the_system_are_listed(tmp_path):
    recipe = get_recipe("unified-mri-ct").with_changes({"training.max_epochs": 3, "prediction.flips": True})
    page = page_of(make_run(tmp_path / "run", recipe))
    assert "training.max_epochs 30 3" in page.plain
    assert "prediction.flips false true" in page.plain


def test_a_damaged_evaluation_is_an_error_with_the_command(tmp_path):
    folder = make_run(tmp_path / "run")
    finish_run(folder)
    (folder.path / "evaluation" / "test" / "curves.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot be shown.*oncoseg evaluate"):
        write_report(folder.path)
    finish_run(folder)
    panels = folder.path / "evaluation" / "test" / "panels.npz"
    panels.write_bytes(panels.read_bytes()[:100])
    with pytest.raises(RunError, match=r"cannot be shown.*oncoseg evaluate"):
        write_report(folder.path)


def test_an_evaluation_of_another_version_is_an_error_with_the_command(tmp_path):
    folder = make_run(tmp_path / "run")
    finish_run(folder)
    summary = folder.path / "evaluation" / "test" / "summary.json"
    summary.write_text(summary.read_text().replace('"format_version": 4', '"format_version": 3'))
    with pytest.raises(RunError, match=r"another version of oncoseg, format 3.*oncoseg evaluate"):
        write_report(folder.path)


def test_the_recipe_is_named_when_it_is_gone(tmp_path):
    with pytest.raises(RunError, match=r"recipe\.json"):
        write_report(tmp_path)


def test_a_log_cut_short_keeps_its_whole_rows(tmp_path):
    (tmp_path / "log.csv").write_text(LOG + "joint,2,m")
    rows = read_log(tmp_path / "log.csv")
    assert [(row["stage"], row["modality"]) for row in rows] == [
        ("pretrain", "ct"),
        ("joint", "mri"),
        ("joint", "ct"),
    ]
    assert rows[0]["train_loss"] == 0.9
    assert math.isnan(rows[1]["validation_dice"])


# the curves


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were drawn, kept instead of written."""
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "svg_of", lambda figure: figures.append(figure) or b"")
    return figures


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Label → points of a plot's lines; those without a label are called _child and their number."""
    return {line.get_label(): [tuple(xy) for xy in line.get_xydata()] for line in figure.axes[0].lines}


def test_learning_curves_show_each_side_in_its_epochs(drawn):
    log = [
        {"stage": stage, "epoch": epoch, "modality": modality}
        | {"train_loss": 4 + n, "validation_loss": 8 + n, "train_dice": n / 10, "validation_dice": n / 5}
        for n, (stage, epoch, modality) in enumerate(
            [
                ("pretrain", 1, "ct"),
                ("joint", 1, "mri"),
                ("joint", 1, "ct"),
                ("joint", 2, "mri"),
                ("joint", 2, "ct"),
            ]
        )
    ]
    names = [curve.name for curve in curves.learning_curves(log, ["mri", "ct"])]
    assert names == [f"learning-{name}-{what}" for name in ("mri", "ct") for what in ("loss", "dice")]
    mri_loss, mri_dice, ct_loss, ct_dice = map(lines, drawn)
    # the pretraining is the first epoch, and MRI joins in the second
    assert (mri_loss["training"], mri_loss["validation"]) == ([(2, 5), (3, 7)], [(2, 9), (3, 11)])
    assert (mri_dice["training"], mri_dice["validation"]) == ([(2, 0.1), (3, 0.3)], [(2, 0.2), (3, 0.6)])
    assert (ct_loss["training"], ct_loss["validation"]) == (
        [(1, 4), (2, 6), (3, 8)],
        [(1, 8), (2, 10), (3, 12)],
    )
    assert ct_dice["validation"] == [(1, 0), (2, 0.4), (3, 0.8)]
    assert [figure.axes[0].get_ylabel() for figure in drawn] == ["loss (no unit)", "Dice (0 to 1)"] * 2


# the examples


NOTHING = np.zeros((12, 12), np.uint8)


def view(truth: np.ndarray = NOTHING, prediction: np.ndarray = NOTHING, image: np.ndarray = NOTHING) -> View:
    """A slice of 12×12 pixels without letters and scale; what is not given is empty."""
    shown = view_at(0, "a", truth[..., None] > 0, prediction[..., None] > 0, None)
    return shown.over(image, "test")


def tile(title: str, shown: View) -> np.ndarray:
    """One tile as pixels. Axes: row, column, colour."""
    example = examples.example(Panel("mri", "tumour", ("best",), "a", 1.0, shown))
    (found,) = [one for one in example.tiles if one.title == title]
    content = base64.b64decode(found.source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def corner(right: bool, anterior: bool, value: int = 1) -> np.ndarray:
    """A slice with one corner of 4×4 voxels marked; i runs to the patient's right, j to anterior."""
    marked = np.zeros((12, 12), np.uint8)
    marked[slice(8, 12) if right else slice(0, 4), slice(8, 12) if anterior else slice(0, 4)] = value
    return marked


def quarters(tile: np.ndarray) -> np.ndarray:
    """Colour inside each corner: top left, top right, bottom left, bottom right."""
    ends = (slice(20, 80), slice(-80, -20))
    return np.array([tile[rows, columns].mean((0, 1)) for rows in ends for columns in ends])


def test_the_patients_right_is_shown_on_the_left_and_anterior_at_the_top():
    found = quarters(tile(examples.IMAGE, view(image=corner(right=True, anterior=True))))
    assert found[0].min() > 250
    assert found[1:].max() < 5


def test_contours_are_lines_of_two_colours_and_nothing_is_filled():
    masks = view(corner(right=True, anterior=True), corner(right=False, anterior=False))
    drawn = tile(examples.CONTOURS, masks)
    assert quarters(drawn).max() == 0  # inside of each corner
    assert tile(examples.IMAGE, masks).max() == 0
    red, blue = 0, 2
    # pixels are 30 wide: the edges of the corners are at 120 and 240
    truth, prediction = drawn[40:80, 115:126].max((0, 1)), drawn[280:320, 235:246].max((0, 1))
    assert truth[blue] > 2 * truth[red] > 0
    assert prediction[red] > 2 * prediction[blue]
    assert drawn[130:230, 130:230].max() == 0


def test_truth_is_a_solid_and_prediction_a_broken_line_without_colours_too():
    def share_of_line(shown: View) -> float:
        """Of the rows along the left edge of the square, how many are lit."""
        lit = tile(examples.CONTOURS, shown).mean(axis=2)[130:230, 115:126].max(axis=1) > 60
        return float(lit.mean())

    square = np.zeros((12, 12), np.uint8)
    square[4:8, 4:8] = 1
    assert share_of_line(view(truth=square)) == 1
    assert 0.3 < share_of_line(view(prediction=square)) < 0.8


def test_letters_and_a_scale_bar_are_drawn_where_they_are_known(monkeypatch):
    texts = []
    monkeypatch.setattr(Axes, "text", lambda axes, x, y, text, **_: texts.append((x, y, text)))
    known = view(corner(right=True, anterior=True))._replace(
        letters=Letters("RA", "LP", "AL", "PR"), pixel_mm=(10.0, 10.0)
    )
    tile(examples.CONTOURS, known)
    # image, contours and close-up: the bar is at most 0.3 × 120 mm long, and of 80 mm in the close-up
    assert [text for _, _, text in texts[:5]] == ["RA", "LP", "AL", "PR", "2 cm"]
    assert [text for x, _, text in texts if x < 0.1][::2] == ["RA"] * 3
    assert texts[-1][2] == "2 cm"
    texts.clear()
    tile(examples.CONTOURS, view(corner(right=True, anterior=True)))
    assert texts == []


@pytest.mark.parametrize(
    ("width_mm", "length_mm"), [(240, 50), (100, 20), (66, 10), (180, 50), (16, 2), (3, 0.5), (700, 200)]
)
def test_the_scale_bar_has_a_round_length(width_mm, length_mm):
    assert examples.bar_length_mm(width_mm) == pytest.approx(length_mm)


def test_close_ups_stay_inside_the_image_and_hold_the_mask():
    mask = np.zeros((100, 80), bool)
    mask[:3, 70:80] = True
    rows, columns = examples.close_up(mask, 1.0)
    assert rows[0] == 0
    assert columns[1] == 80
    assert rows[1] - rows[0] == columns[1] - columns[0] == examples.CLOSE_UP_SMALLEST
    assert examples.close_up(np.zeros((5, 7), bool), 1.0) == ((0, 5), (0, 7))


def test_close_ups_show_the_truth_also_where_a_prediction_lies_far_away():
    truth, prediction = np.zeros((2, 60, 60), np.uint8)
    truth[40:50, 40:50] = prediction[2:4, 2:4] = 1
    shown = view_at(0, "a", truth[..., None] > 0, prediction[..., None] > 0, None).over(truth * 0, "test")
    drawn = tile(examples.CLOSE_UP, shown).max((0, 1))
    red, blue = 0, 2
    assert drawn[blue] > 2 * drawn[red] > 0  # the truth's colour alone
    drawn = tile(examples.CLOSE_UP, shown._replace(outcome=shown.outcome & IN_PREDICTION)).max((0, 1))
    assert drawn[red] > 2 * drawn[blue]


def test_close_ups_of_oblong_pixels_are_as_high_as_wide():
    mask = np.zeros((200, 60), bool)
    mask[80:120, 20:30] = True
    # pixels of 4 mm by 1 mm: 40 rows are 40 mm, 10 columns as well, and twice that is shown
    assert examples.close_up(mask, 0.25) == ((60, 140), (15, 35))


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(1, 2, "50.0 %"), (1, 1000, "0.100 %"), (999, 1000, "99.900 %"), (0, 0, "–")]
)
def test_percentages(part, whole, text):
    assert words.percent(part, whole) == text


def test_numbers_for_people():
    assert [words.score(value) for value in (0.456, None, math.nan)] == ["0.46", "–", "–"]
    assert [words.volume(value) for value in (0.5, 123.4, math.nan, "")] == ["0.50", "123", "–", "–"]
    assert [words.group_name(name) for name in ("mri", "all", "brain")] == ["MRI", "All together", "Brain"]
