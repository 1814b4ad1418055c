"""Evaluating a run's side: what is written, what it replaces, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch

from oncoseg import datasets, predict
from oncoseg.case_prediction import CasePrediction
from oncoseg.datasets.base import Case, Scan
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate import long_table
from oncoseg.evaluate.result import OF_SEVERAL
from oncoseg.evaluate.run import evaluate_run, is_evaluated
from oncoseg.files import sha256_of_file
from oncoseg.io import ImageRef
from oncoseg.metrics.catalogue import METRICS
from oncoseg.recipe import Modality, Recipe
from oncoseg.run_folder import RunFolder
from test_evaluate import PUBLISHED, case


class Known:
    """Predicts what the tests know."""

    def predict_case(self, wanted: Case, modality: str, scratch: Path | None = None) -> CasePrediction:
        return case(wanted.patient, ["1100 1000"], case_id=wanted.id, modality=modality)


def described(case_id: str, patient: str, masks: int = 1, image: ImageRef | None = None) -> Case:
    images = {"T1": image or ImageRef(())}
    masks_of = tuple(ImageRef(()) for _ in range(masks))
    return Case(case_id, patient, images, masks=masks_of, labels={1: "tumour"})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run on mri with one patient on each side, whose data set the test may change in `found`."""
    found = [described("c1", "p1"), described("c2", "p2"), described("c3", "p3"), described("c4", "p3")]
    monkeypatch.setattr(
        datasets, "open_dataset", lambda path, layout, **more: Scan(layout, tuple(found)), raising=False
    )
    folder = RunFolder(tmp_path / "run")

    def loaded(path, changes):
        known = Known()
        known.weights_sha256, known.precision = sha256_of_file(folder.model), "32-true"
        known.device = torch.device("cpu")
        known.recipe = RunFolder(path).recipe().with_changes(changes or {})
        return known

    monkeypatch.setattr(predict, "Predictor", type("P", (), {"load": staticmethod(loaded)}), raising=False)
    folder.write_recipe(
        Recipe(
            name="x",
            title="x",
            source="x",
            modalities={"mri": Modality(channels=("T1",))},
            published=PUBLISHED,
        )
    )
    sides = {"train": {"p1": ["c1"]}, "validation": {"p2": ["c2"]}, "test": {"p3": ["c3", "c4"]}}
    folder.write_split(0, {"mri": sides})
    folder.model.write_bytes(b"weights")
    folder.write_data({"mri": {"path": str(tmp_path), "layout": "lgg"}})
    return folder, sides, found


def test_a_run_is_evaluated_on_its_test_side(run):
    folder, _, _ = run
    steps = []
    written = evaluate_run(folder.path, progress=lambda done, total: steps.append((done, total)))
    assert written == folder.path / "evaluation" / "test"
    summary = json.loads((written / "summary.json").read_text())
    assert (summary["split"], summary["threshold"]) == ("test", 0.5)
    assert summary["weights"] == sha256_of_file(folder.model)
    assert summary["published"][0]["row"] == "mri"
    with (written / "per_patient.csv").open() as file:
        assert [(row["patient"], row["cases"]) for row in csv.DictReader(file)] == [("p3", "2")]
    assert steps == [(0, 2), (1, 2), (2, 2)]


def test_every_metric_of_a_run_is_in_the_tables_for_comparing(run):
    folder, _, _ = run
    written = evaluate_run(folder.path)
    rows = long_table.read(written)
    assert {(row.group, row.patient, row.label) for row in rows} == {("mri", "p3", "tumour")}
    assert [row.metric for row in rows] == list(METRICS)
    assert {row.case for row in long_table.read(written, long_table.CASES)} == {"c3", "c4"}
    with (written / "per_patient.csv").open() as file:
        (patient,) = csv.DictReader(file)
    (dice,) = [row.value for row in rows if row.metric == "dice"]
    assert dice == pytest.approx(float(patient["dice"]))
    assert len(long_table.read_counts(written)) == 2


def test_how_the_probabilities_were_made_is_kept(run):
    folder, _, _ = run
    summary = json.loads((evaluate_run(folder.path) / "summary.json").read_text())
    assert summary["prediction"]["flips"] is False
    changes = {"prediction.flips": True, "prediction.threshold": 0.6}
    written = evaluate_run(folder.path, changes=changes, replace=True)
    summary = json.loads((written / "summary.json").read_text())
    assert (summary["prediction"]["flips"], summary["threshold"]) == (True, 0.6)
    assert (summary["prediction"]["precision"], summary["prediction"]["device"]) == ("32-true", "cpu")


def test_an_evaluation_of_several_classes_names_the_rule_that_tells_them_apart(run):
    folder, _, _ = run
    evaluate_run(folder.path)
    assert is_evaluated(folder.path, "test")
    folder.write_recipe(folder.recipe().with_changes({"classes": {"liver": ["liver"], "tumour": ["tumour"]}}))
    assert not is_evaluated(folder.path, "test"), "its tables know no classes"
    place = evaluate_run(folder.path, replace=True) / "summary.json"
    summary = json.loads(place.read_text()) | {"format_version": OF_SEVERAL}  # what is predicted here has one
    place.write_text(json.dumps(summary))
    assert is_evaluated(folder.path, "test")
    del summary["prediction"]["labels_by"]
    place.write_text(json.dumps(summary))
    assert not is_evaluated(folder.path, "test"), "it names no rule, as of before there was one"
    with pytest.raises(RunError, match="labels_by was None, is now the likeliest class"):
        evaluate_run(folder.path)


def test_the_evaluated_files_have_a_fingerprint(run, tmp_path):
    folder, _, found = run
    image = tmp_path / "image.nii"
    seen = []
    for content in (b"one", b"two", b"one"):
        image.write_bytes(content)
        found[3] = described("c4", "p3", image=ImageRef((image,)))
        written = evaluate_run(folder.path, replace=True)
        seen.append(json.loads((written / "summary.json").read_text())["data"]["mri"])
    assert seen[0] == seen[2] != seen[1]


def test_phantoms_are_marked(run, monkeypatch):
    folder, _, found = run
    assert json.loads((evaluate_run(folder.path) / "summary.json").read_text())["synthetic"] is False
    monkeypatch.setattr(
        datasets, "open_dataset", lambda path, layout, **more: Scan(layout, tuple(found), synthetic=True)
    )
    assert json.loads((evaluate_run(folder.path) / "summary.json").read_text())["synthetic"] is True


def test_a_patient_whom_another_modality_was_trained_on_is_refused(run, tmp_path):
    folder, sides, _ = run
    other = {"train": {"p3": ["c3"]}, "validation": {}, "test": {}}
    folder.write_split(0, {"mri": sides, "ct": other})
    folder.write_data({name: {"path": str(tmp_path), "layout": "lgg"} for name in ("mri", "ct")})
    with pytest.raises(DataError, match="1 patients of test are also in train"):
        evaluate_run(folder.path)


def test_evaluating_again_replaces_the_files(run):
    folder, _, _ = run
    written = evaluate_run(folder.path)
    (written / "summary.json").write_text("old")
    evaluate_run(folder.path)
    assert json.loads((written / "summary.json").read_text())["split"] == "test"


@pytest.mark.parametrize(
    ("changes", "weights", "words"),
    [
        ({"prediction.threshold": 0.3}, b"weights", "threshold was 0.5, is now 0.3"),
        ({"prediction.flips": True}, b"weights", "flips was False, is now True"),
        ({}, b"trained on", "the weights have changed"),
    ],
)
def test_another_evaluation_is_not_overwritten_without_a_word(run, tmp_path, changes, weights, words):
    folder, _, _ = run
    written = evaluate_run(folder.path)
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    folder.model.write_bytes(weights)
    with pytest.raises(RunError, match=rf"holds another evaluation: {words}\. To keep both.*--replace"):
        evaluate_run(folder.path, changes=changes)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    other = evaluate_run(folder.path, changes=changes, out=tmp_path / "other")
    assert other == tmp_path / "other"
    assert {path.name for path in other.iterdir()} == set(before)
    assert evaluate_run(folder.path, changes=changes, out=other) == other  # the same again renews it
    with pytest.raises(RunError, match="holds another evaluation"):
        evaluate_run(folder.path, changes={"prediction.threshold": 0.7}, out=other)
    assert evaluate_run(folder.path, changes=changes, replace=True) == written
    summary = json.loads((written / "summary.json").read_text())
    assert summary["weights"] == sha256_of_file(folder.model)


def test_changed_images_are_another_evaluation(run, tmp_path):
    folder, _, found = run
    evaluate_run(folder.path)
    image = tmp_path / "image.nii"
    image.write_bytes(b"other")
    found[3] = described("c4", "p3", image=ImageRef((image,)))
    with pytest.raises(RunError, match="the images or masks of mri have changed"):
        evaluate_run(folder.path)


def test_how_many_slices_are_computed_at_a_time_is_no_other_evaluation(run):
    folder, _, _ = run
    written = evaluate_run(folder.path)
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert evaluate_run(folder.path, changes={"prediction.batch_size": 3}) == written
    after = {path.name: path.read_bytes() for path in written.iterdir()}
    first, again = (json.loads(files.pop("summary.json")) for files in (before, after))
    assert after == before
    # the summary says it all the same
    assert [summary["prediction"].pop("batch_size") for summary in (first, again)] == [16, 3]
    assert again == first


def test_a_folder_with_something_else_is_left_alone(run, tmp_path):
    folder, _, _ = run
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(RunError, match="not empty"):
        evaluate_run(folder.path, out=tmp_path / "mine")
    (tmp_path / "mine" / "summary.json").write_text('{"format_version": 1, "classes": {}}')
    with pytest.raises(RunError, match="it is one of masks"):
        evaluate_run(folder.path, out=tmp_path / "mine")
    (tmp_path / "mine" / "summary.json").write_text('{"format_version": 1, "weights": "x"}')
    with pytest.raises(RunError, match="made by another version of oncoseg"):
        evaluate_run(folder.path, out=tmp_path / "mine")


def test_a_case_that_is_gone_is_named(run):
    folder, _, found = run
    del found[3]
    with pytest.raises(DataError, match="c4"):
        evaluate_run(folder.path)


def test_a_training_case_that_is_gone_does_not_matter(run):
    folder, _, found = run
    del found[0]
    assert (evaluate_run(folder.path) / "summary.json").is_file()


@pytest.mark.parametrize("other", ["train", "validation"])
def test_a_patient_on_two_sides_is_refused(run, other):
    folder, sides, _ = run
    sides[other]["p3"] = ["c4"]
    sides["test"]["p3"] = ["c3"]
    folder.write_split(0, {"mri": sides})
    with pytest.raises(DataError, match=rf"1 patients of test are also in {other}.*'p3'"):
        evaluate_run(folder.path)


def test_a_case_whose_patient_was_trained_on_is_refused_whatever_the_split_calls_it(run):
    folder, _, found = run
    found[3] = described("c4", "p1")
    with pytest.raises(DataError, match="also in train"):
        evaluate_run(folder.path)


def test_cases_without_truth_are_refused(run):
    folder, _, found = run
    found[2] = described("c3", "p3", masks=0)
    with pytest.raises(DataError, match="no mask"):
        evaluate_run(folder.path)


def test_an_empty_side_is_said_to_be(run):
    folder, sides, _ = run
    folder.write_split(0, {"mri": sides | {"test": {}}})
    with pytest.raises(RunError, match="no patient under test, so that there is nothing to evaluate"):
        evaluate_run(folder.path)


def test_unknown_names_are_refused(run, tmp_path):
    folder, _, _ = run
    with pytest.raises(RunError, match="expected one of train, validation, test"):
        evaluate_run(folder.path, split="tests")
    with pytest.raises(RunError, match="this run has mri"):
        evaluate_run(folder.path, data={"pet": tmp_path})
    with pytest.raises(RunError, match="not a complete run folder"):
        evaluate_run(tmp_path)


def test_another_threshold_may_be_asked_for(run):
    folder, _, _ = run
    written = evaluate_run(folder.path, changes={"prediction.threshold": 0.25})
    assert json.loads((written / "summary.json").read_text())["threshold"] == 0.25
