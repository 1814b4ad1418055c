"""A study of two groups and two networks, small enough to be trained in seconds."""

import csv
import json
from pathlib import Path
from typing import Any

from oncoseg.run_folder import RunFolder
from oncoseg.studies.study import Group, PublishedRow, PublishedTable, Study, Variant
from oncoseg.study_folder import StudyFolder

CHANGES: dict[str, Any] = {
    "preparation.slice_size": [16, 16],
    "network.arguments.features": [4, 8],
    "training.max_epochs": 1,
    "training.batch_size": 4,
    "training.device": "cpu",
    "training.precision": "32-true",
    "split.train": 0.4,
    "split.validation": 0.2,
}
"""Of eight patients three train, two validate and three test."""


def tiny_study(**fields: Any) -> Study:
    """FLAIR and T1 with contrast, a plain U-Net and one with ASPP."""
    plain = {"network.arguments.attention": False, "network.arguments.context": None}
    printed = PublishedRow(group="FLAIR", variant="ASPP", scores={"dice": 0.7975, "miou": 0.4583})
    values: dict[str, Any] = {
        "name": "two-by-two",
        "title": "Two networks on two sequences",
        "source": "a test",
        "groups": {
            "FLAIR": Group(recipe="aspp-attention-flair"),
            "T1C": Group(recipe="aspp-attention-t1c"),
        },
        "variants": {"U-Net": Variant(changes=plain), "ASPP": Variant()},
        "changes": CHANGES,
        "published": PublishedTable(data="BraTS 2023", rows=(printed,)),
    }
    return Study(**(values | fields))


def study_file(folder: Path, study: Study | None = None, **changes: Any) -> Path:
    """A study as a user writes it; `changes` replace its fields, whether they fit or not."""
    values = json.loads((study or tiny_study()).to_json()) | changes
    path = folder / "study.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def runs_of(out: Path) -> dict[str, RunFolder]:
    folder = StudyFolder(out)
    return {run.name: folder.run(run) for run in folder.study().runs()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
