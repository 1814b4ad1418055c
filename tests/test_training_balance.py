"""Where slices cannot be drawn evenly from each group and with a share of tumour at once, it is told."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oncoseg.cross_validate import train_folds
from oncoseg.errors import RunError
from oncoseg.run_folder import RunFolder
from oncoseg.sampler import epoch_batches
from oncoseg.store import PreparedCase
from oncoseg.train import resume, train
from oncoseg.training import balance
from oncoseg.training import data as training_data
from oncoseg.training.balance import uneven
from oncoseg.training.sources import Sources
from runs import stopping_at
from test_sampler import prepared
from tiny import brats_case, tiny_recipe


def of_site(name: str | None, *pixels: int) -> PreparedCase:
    case = prepared(list(pixels), f"at {name}")
    at_site = replace(case, site=name)
    at_site.__dict__["description"] = case.description
    return at_site


BOTH = (1, 0) * 20
NONE = (0,) * 40
ALL = (1,) * 40


@pytest.mark.parametrize(
    ("cases", "share", "expected"),
    [
        ([of_site("A", *BOTH), of_site("B", *NONE)], 0.5, "A 75%, B 25%"),
        ([of_site("A", *BOTH), of_site("B", *NONE)], 0.9, "A 95%, B 5%"),
        ([of_site("A", *ALL), of_site(None, *NONE), of_site("C", *NONE)], 0.5, "A 50%, unknown 25%, C 25%"),
        ([of_site("A", *BOTH), of_site("B", *BOTH)], 0.9, None),
        ([of_site("A", *ALL), of_site("B", *NONE)], 0.5, None),
        ([of_site("A", *NONE), of_site("B", *NONE)], 0.5, None),
    ],
)
def test_the_shares_told_are_those_drawn(
    cases: list[PreparedCase], share: float, expected: str | None
) -> None:
    recipe = tiny_recipe(training__balance="site", training__tumour_share=share)
    told = uneven(recipe, cases)
    assert (told is None) == (expected is None)
    assert expected is None or f"of all slices drawn, {expected} (" in str(told)
    batches = epoch_batches({"ct": cases}, 8, share, (0,), lambda case: case.site)
    counted = Counter(cases[ref.case].site or "unknown" for batch in batches for ref in batch["ct"])
    assert counted.total() in (80, 120)
    drawn = {name: count / counted.total() for name, count in counted.items()}
    if expected is None:
        assert drawn == {name: pytest.approx(1 / len(drawn), abs=0.02) for name in drawn}
    else:
        parts = (one.rsplit(" ", 1) for one in expected.split(", "))
        assert drawn == {name: pytest.approx(int(of[:-1]) / 100, abs=0.02) for name, of in parts}


def test_one_of_the_two_alone_always_holds() -> None:
    cases = [of_site("A", *BOTH), of_site("B", *NONE)]
    assert uneven(tiny_recipe(training__balance="site"), cases) is None
    assert uneven(tiny_recipe(training__tumour_share=0.5), cases) is None


def in_a_table(folder: Path) -> Path:
    """Three MRI cases of one site in a table, as which they can be said to be of others."""
    lines = ["case,patient,T1,T1ce,T2,FLAIR,label,class,site"]
    for number in range(3):
        case = brats_case(folder / "images", number)
        files = [
            f"images/{case.name}/{case.name}_{end}.nii.gz" for end in ("t1", "t1ce", "t2", "flair", "seg")
        ]
        lines.append(",".join([f"case-{number}", f"P{number}", *files, "benign", "Ulm"]))
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    (folder / "labels.json").write_text(json.dumps({"tumour": 4}))
    return folder


def sites(table: Path) -> None:
    (table / "cases.csv").write_text((table / "cases.csv").read_text().replace("Ulm", "Bonn", 2))


def classes(table: Path) -> None:
    (table / "cases.csv").write_text((table / "cases.csv").read_text().replace("benign", "malignant", 2))


RECIPE = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=3, training__balance="site").with_only(
    ["mri"]
)


@pytest.mark.parametrize("change", [sites, classes])
def test_another_site_or_class_is_other_data(
    tmp_path: Path, store: Path, change: Callable[[Path], None]
) -> None:
    data = {"mri": in_a_table(tmp_path / "data")}
    train(RECIPE, data, tmp_path / "run", store=store, workers=0, monitor=stopping_at(1))
    assert not resume(tmp_path / "run", store=store, workers=0, monitor=stopping_at(1)).finished
    change(data["mri"])
    with pytest.raises(RunError, match=r"The mri data at .* have changed"):
        resume(tmp_path / "run", store=store, workers=0)


def test_a_run_of_before_goes_on_by_its_images(tmp_path: Path, store: Path) -> None:
    data, run = {"mri": in_a_table(tmp_path / "data")}, RunFolder(tmp_path / "run")
    train(RECIPE, data, run.path, store=store, workers=0, monitor=stopping_at(1))
    record = run.data()["mri"]
    record["fingerprint"] = record.pop("images_fingerprint")
    run.write_data({"mri": record})
    assert resume(run.path, store=store, workers=0).finished


def test_a_cross_validation_of_before_goes_on_by_its_images(tmp_path: Path, store: Path) -> None:
    data, out = {"mri": in_a_table(tmp_path / "data")}, tmp_path / "cv"
    train_folds(RECIPE, data, out, 3, fold=1, store=store, workers=0)
    for run in (RunFolder(out), *(RunFolder(out / f"fold-{number}") for number in (1, 2, 3))):
        record = run.data()["mri"]
        record["fingerprint"] = record.pop("images_fingerprint")
        run.write_data({"mri": record})
    assert train_folds(RECIPE, data, out, 3, fold=2, store=store, workers=0).finished


def test_it_is_told_when_training_begins(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(balance, "uneven", lambda recipe, cases: f"of {len(cases)}")
    sources = Sources(
        {"mri": in_a_table(tmp_path / "data")},
        remark=lambda name, problems: told.extend(
            (name, one.message) for one in problems if one.kind == "uneven-balance"
        ),
    )
    training_data.load(RECIPE, sources, store, workers=0)
    training_data.load_all(RECIPE, sources, store, workers=0)
    assert told == [("mri", "of 1"), ("mri", "of 3")]
