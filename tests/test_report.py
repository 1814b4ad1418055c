import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from oncoseg.errors import RunError
from oncoseg.evaluate import evaluate_predictions
from oncoseg.predict import CasePrediction
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe
from oncoseg.report import figures, words, write_report
from oncoseg.report.contents import read_log, read_run
from oncoseg.run_folder import RunFolder

LOG = """\
stage,epoch,modality,train_loss,train_dice,validation_loss,validation_dice,macro_dice,learning_rate,minutes
pretrain,1,ct,0.9,0.1,0.9,0.1,0.1,0.0001,1
joint,1,mri,0.8,0.2,0.8,nan,0.2,0.0001,2
joint,1,ct,0.8,0.2,0.8,0.2,0.2,0.0001,2
"""
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
    # loss and Dice per modality, strip, ROC, precision–recall, and four tiles per example
    examples = 3 + 2
    assert len(complete.images) == 4 + 1 + 2 + 4 * examples


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
    listed = re.findall(r'<th scope="row">(\w\d)</th>', complete.text)
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
    summary.write_text(summary.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(RunError, match=r"another version of oncoseg, format 1.*oncoseg evaluate"):
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


def test_close_ups_stay_inside_the_image_and_hold_the_mask():
    mask = np.zeros((100, 80), bool)
    mask[:3, 70:80] = True
    rows, columns = figures._close_up(mask)
    assert rows[0] == 0
    assert columns[1] == 80
    assert rows[1] - rows[0] == columns[1] - columns[0] == figures.CLOSE_UP_SMALLEST
    assert figures._close_up(np.zeros((5, 7), bool)) == ((0, 5), (0, 7))


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(1, 2, "50.0 %"), (1, 1000, "0.100 %"), (999, 1000, "99.900 %"), (0, 0, "–")]
)
def test_percentages(part, whole, text):
    assert words.percent(part, whole) == text


def test_numbers_for_people():
    assert [words.score(value) for value in (0.456, None, math.nan)] == ["0.46", "–", "–"]
    assert [words.volume(value) for value in (0.5, 123.4, math.nan, "")] == ["0.50", "123", "–", "–"]
    assert [words.group_name(name) for name in ("mri", "all", "brain")] == ["MRI", "All together", "Brain"]
