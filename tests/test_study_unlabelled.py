"""Studies of few masks: all runs have the masks of the same patients, and say whose are hidden."""

from pathlib import Path
from typing import Any

import pytest

from oncoseg.convert import convert
from oncoseg.run_folder import RunFolder
from oncoseg.split import UNLABELLED
from oncoseg.studies.study import Study, Variant
from oncoseg.study_folder import StudyFolder
from oncoseg.study_layout import lay_out
from oncoseg.train_study import resume_study, train_study
from oncoseg.training.sources import Sources
from runs import assert_same
from tiny import tiny_data
from tiny_study import CHANGES, tiny_study

HALF = {"split.labelled": 0.5, "network.arguments.attention": False, "network.arguments.context": None}
"""Of three training patients two keep their masks."""

SUP = Variant(changes={"training.average_decay": 0.9})
MT = Variant(changes={"training.average_decay": 0.9, "training.unlabelled.weight": 1.0})


@pytest.fixture(scope="module")
def mri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients."""
    return tiny_data(tmp_path_factory.mktemp("data"), mri=8, ct=0)["mri"]


def study_of(variants: dict[str, Variant], **changes: Any) -> Study:
    groups = {"FLAIR": tiny_study().groups["FLAIR"]}
    return tiny_study(groups=groups, variants=variants, changes=CHANGES | HALF | changes, published=None)


def runs_of(out: Path) -> dict[str, RunFolder]:
    folder = StudyFolder(out)
    return {run.variant: folder.run(run) for run in folder.study().runs()}


@pytest.mark.parametrize(
    "variants",
    [
        {"sup": SUP, "mt": MT},
        {"mt": MT, "sup": SUP},
        {"one": Variant(), "two": Variant(changes={"training.seed": 7})},
    ],
)
def test_networks_with_few_masks_have_those_of_the_same_patients(
    mri: Path, store: Path, tmp_path: Path, variants: dict[str, Variant]
) -> None:
    out = tmp_path / "out"
    assert train_study(study_of(variants), {"mri": mri}, out, store=store, workers=0).finished
    assert resume_study(out, store=store, workers=0).finished
    sides = StudyFolder(out).split()["mri"]
    assert {part: len(patients) for part, patients in sides.items()} == {
        "train": 2,
        "validation": 2,
        "test": 3,
        UNLABELLED: 1,
    }
    for name, run in runs_of(out).items():
        assert run.split() == {"mri": sides}
        learnt = run.data()["mri"].get("unlabelled", {}).get("patients")
        assert learnt == (1 if name == "mt" else None)


def test_nnunet_gets_no_hidden_mask_of_a_studys_run(mri: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = study_of({"sup": SUP})
    assert not train_study(study, {"mri": mri}, out, max_minutes=1e-6, store=store, workers=0).finished
    for folder in (runs_of(out)["sup"], RunFolder(out)):
        split = folder.split()
        (hidden,) = split["mri"][UNLABELLED]
        made = tmp_path / folder.path.name / "Dataset001_A"
        assert convert(mri, "nnunet", made, names="keep", split=split, workers=0).left_out == (hidden,)
        assert len(list((made / "labelsTr").iterdir())) == 4


def test_a_study_begun_before_hidden_patients_were_listed_goes_on(
    mri: Path, store: Path, tmp_path: Path
) -> None:
    """Its split lists them as training patients, and so does that of a run that was begun."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    study, options = study_of({"sup": SUP, "mt": MT}), {"store": store, "workers": 0}
    assert train_study(study, {"mri": mri}, whole, **options).finished
    assert not train_study(study, {"mri": mri}, out, variants=["sup"], max_minutes=1e-6, **options).finished
    for folder in (RunFolder(out), runs_of(out)["sup"]):
        parts = folder.split()["mri"]
        parts["train"] |= parts.pop(UNLABELLED)
        folder.write_split(0, {"mri": parts})
    assert resume_study(out, **options).finished
    for name, run in runs_of(out).items():
        assert run.split() == runs_of(whole)[name].split()
        assert_same(run, runs_of(whole)[name])


def test_a_given_split_keeps_whose_masks_it_hides(mri: Path, store: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options: dict[str, Any] = {"max_minutes": 1e-6, "store": store, "workers": 0}
    train_study(study_of({"sup": SUP}, **{"training.seed": 3}), {"mri": mri}, first, **options)
    train_study(study_of({"mt": MT}), {"mri": mri}, second, split_file=first / "split.json", **options)
    assert StudyFolder(second).split() == StudyFolder(first).split()


def test_runs_of_one_preparation_are_laid_out_with_one(
    mri: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is learnt from scans without a mask, and not the training's seed, asks for another."""
    from oncoseg.training import data as training_data

    calls, load = list[str](), training_data.load

    def counted(recipe: Any, *given: Any, **named: Any) -> Any:
        calls.append(recipe.title)
        return load(recipe, *given, **named)

    monkeypatch.setattr(training_data, "load", counted)
    sown = SUP.changes | {"training.seed": 5}
    study = study_of({"sup": SUP, "sown": Variant(changes=sown), "mt": MT})
    train_study(study, {"mri": mri}, tmp_path / "out", max_minutes=1e-6, store=store, workers=0)
    del calls[-1]  # of the training
    assert [title.rpartition(" ")[2] for title in calls] == ["sup", "mt"]
    lay_out(StudyFolder(tmp_path / "out"), study.runs(), Sources({"mri": mri}), store, 0, None)
    assert len(calls) == 4
