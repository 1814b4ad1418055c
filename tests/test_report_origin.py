"""What a report says of how its run came about; figures are worked out by hand."""

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from oncoseg.errors import RunError
from oncoseg.folds_folder import FoldsFolder
from oncoseg.report import write_report
from oncoseg.report.origin import NOT_SHOWN, read_origin
from oncoseg.run_folder import RunFolder
from oncoseg.train import train
from oncoseg.training.sources import Sources
from test_report import Page, make_run
from tiny import tiny_recipe

HARDWARE = {"processor": "A processor", "threads": 2, "gpu": None, "python": "3.11.9", "torch": "2.13.0"}


def call(**changes: Any) -> dict[str, Any]:
    """Ten minutes from the start to the end."""
    return {
        "started": "2026-03-01T08:30:59+00:00",
        "from": {"stage": "pretrain", "epoch": 1, "steps_of_epoch": 0},
        "to": {"stage": "end", "epoch": None, "steps_of_epoch": 0},
        "ended": "all epochs are done",
        "remarks": [],
        "packages": {"oncoseg": "1.2.3", "numpy": "2.0.0", "torch": "2.13.0"},
        "revision": {"commit": "abc123", "changed": True},
        "hardware": HARDWARE,
        "precision": "32-true",
        "minutes": 10.0,
        "processor_seconds": 1200.0,
        "energy_joules": 7200.0,
        "energy_note": "of /sys/class/powercap",
    } | changes


def write_record(run: RunFolder, *calls: dict[str, Any], origin: str = "doi:10.1000/x") -> None:
    names = ("minutes", "processor_seconds", "energy_joules")
    sums = {name: [one[name] for one in calls] for name in names}
    data = {"layout": "brats", "licence": "CC BY 4.0", "origin": origin}
    run.write_record(
        {
            "seeds": {"split": 3, "training": 7},
            "data": {"mri": data, "ct": data | {"licence": "not stated"}},
            "in_all": {name: None if None in of else sum(of) for name, of in sums.items()},
            "calls": list(calls),
        }
    )


STOPPED = {"to": {"stage": "joint", "epoch": 2, "steps_of_epoch": 1}, "ended": "SIGTERM was received"}


class Folded(HTMLParser):
    """The words within `details`, and whether any of these is open at first."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.depth, self.opened, self.words = 0, 0, list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.depth += tag == "details"
        self.opened += tag == "details" and "open" in dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "details"

    def handle_data(self, data: str) -> None:
        self.words += data.split() if self.depth else []

    @property
    def plain(self) -> str:
        return " ".join(self.words)


def test_the_calls_of_a_run_are_folded_away_with_their_sums(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_record(run, call(**STOPPED), call(hardware=HARDWARE | {"threads": 4}, remarks=["Two parts."]))
    page = write_report(run.path).read_text("utf-8")
    assert Page(page).open == []
    folded = Folded(page)
    assert folded.opened == 0
    for said in (
        "How this run came about: 20.0 minutes of training",
        "1 2026-03-01 08:30 UTC joint epoch 2, 1 step SIGTERM was received 10.0 20.0 2.0",
        "2 2026-03-01 08:30 UTC the end all epochs are done 10.0 20.0 2.0",
        "in all 20.0 40.0 4.0",
        "Two parts.",
        "seeds split 3, training 7 oncoseg 1.2.3 commit abc123, changed since processor A processor",
        "threads 2; also 4 gpu none python 3.11.9 precision 32-true packages numpy 2.0.0, torch 2.13.0",
        "MRI CC BY 4.0 doi:10.1000/x CT not stated doi:10.1000/x",
    ):
        assert said in folded.plain


def test_what_was_not_measured_or_not_ended_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_record(run, call(energy_joules=None, ended=None, revision=None))
    origin = read_origin(run, [])
    assert origin.in_all == ("10.0", "20.0", "not measured")
    assert (origin.rows[0].ended, origin.circumstances["commit"]) == (
        "not ended, or killed",
        "not a checkout",
    )


@pytest.mark.parametrize(
    "origin", ["/home/anna/scans", "of ~anna/scans", r"C:\scans", "file:///home/anna", r"\\host\anna"]
)
def test_a_path_that_was_stated_is_not_shown(tmp_path: Path, origin: str) -> None:
    run = make_run(tmp_path / "run")
    write_record(run, call(), origin=origin)
    page = write_report(run.path).read_text("utf-8")
    assert "anna" not in page
    assert "scans" not in page
    assert page.count(NOT_SHOWN) == 2


def test_folds_are_a_row_each_and_unfinished_ones_are_left_out(tmp_path: Path) -> None:
    out = make_run(tmp_path / "cv").path
    sides = json.loads((out / "split.json").read_text())["modalities"]
    FoldsFolder(out).write_splits(0, [sides] * 3)
    runs = [make_run(run.path) for run in FoldsFolder(out).runs()]
    write_record(runs[0], call(**STOPPED), call())
    write_record(runs[2], call(energy_joules=None))
    folded = Folded(write_report(out).read_text("utf-8"))
    for said in (
        "How these folds came about: 30.0 minutes of training",
        "fold-1 2026-03-01 08:30 UTC the end in 2 calls all epochs are done 20.0 40.0 4.0",
        "fold-3 2026-03-01 08:30 UTC the end all epochs are done 10.0 20.0 not measured",
        "in all 30.0 60.0 not measured",
    ):
        assert said in folded.plain
    assert "fold-2" not in folded.plain


def test_a_run_without_a_record_has_no_such_section_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "origin" not in write_report(run.path).read_text("utf-8").split("</style>")[1].lower()
    damaged: list[Mapping[str, Any]] = [{}, {"calls": [{}]}, {"calls": 3}]
    for content in damaged:
        run.write_record(dict(content))
        with pytest.raises(RunError, match=r"The record in .*is damaged"):
            write_report(run.path)


def test_the_record_that_training_writes_is_shown(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1)
    train(recipe, Sources(data, licences={"mri": "CC0"}), tmp_path / "run", store=store, workers=0)
    page = write_report(tmp_path / "run").read_text("utf-8")
    folded = Folded(page)
    assert "the end all epochs are done" in folded.plain
    assert "MRI CC0 not stated" in folded.plain
    assert str(tmp_path) not in folded.plain
