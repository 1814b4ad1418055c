"""What is said of images in which the first stage of a cascade finds no organ: at every step."""

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import safetensors.torch
import torch

from oncoseg import prediction_record
from oncoseg.cascade_folder import CascadeFolder
from oncoseg.cli import main
from oncoseg.folds_folder import FoldsFolder
from oncoseg.predict import Predictor
from runs import replace_weights
from test_train_cascade import data, steps, store, whole, without

__all__ = ["data", "steps", "store", "whole"]
"""Fixtures that are those of another file."""


def test_a_warning_ends_a_training_whose_first_stage_missed_the_organ(
    whole: CascadeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CascadeFolder(without(whole, tmp_path / "run", "split.json"))
    again = ["train", "--resume", "--out", str(folder.path)]
    cases = folder.found()["ct"]
    folder.write_found({"ct": {case: replace(one, organ_found=True) for case, one in cases.items()}})
    assert main(again) == 0
    assert capsys.readouterr().err == ""
    lost = list(cases)[:2]
    folder.write_found(
        {"ct": {case: replace(one, organ_found=case not in lost) for case, one in cases.items()}}
    )
    assert main(again) == 0
    warning = "Stage 1 found no liver in 2 of 5 training and validation cases, of which stage 2 saw the whole"
    assert warning in " ".join(capsys.readouterr().err.split())


def test_an_image_without_the_organ_is_told(
    whole: CascadeFolder, data: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every network of stage 1 has learnt that nothing is liver: an empty mask and a sentence, no crash."""
    out = tmp_path / "run"
    shutil.copytree(whole.path, out)
    before = Predictor.load(out).weights_sha256
    for run in FoldsFolder(CascadeFolder(out).first).runs():
        weights = safetensors.torch.load_file(run.model)
        blind = {
            name: torch.full_like(value, -100) if name == "head.bias" else torch.zeros_like(value)
            for name, value in weights.items()
        }
        replace_weights(run, safetensors.torch.save(blind))
    assert Predictor.load(out).weights_sha256 != before
    image = data["ct"] / "imagesTr" / "liver_9000.nii.gz"
    assert main(["predict", str(out), str(image), "--out", str(tmp_path / "masks")]) == 0
    assert not np.asarray(nib.load(tmp_path / "masks" / "liver_9000.nii.gz").dataobj).any()
    sentence = "Stage 1 found no liver in this image"
    assert sentence in " ".join(capsys.readouterr().err.split())
    ((text,),) = prediction_record.remarks(tmp_path / "masks").values()
    assert text.startswith(sentence)
    capsys.readouterr()
    assert main(["evaluate", str(out)]) == 0
    folder, remark = (
        out / "evaluation" / "test",
        "In 2 of 2 cases stage 1 found no liver, so that the prediction",
    )
    assert remark in " ".join(capsys.readouterr().err.split())
    summary = json.loads((folder / "summary.json").read_text())
    assert [text[: len(remark)] for text in summary["remarks"]] == [remark]
    assert list(map(len, summary["organ_not_found"].values())) == [2]
    assert main(["report", str(out)]) == 0
    assert remark in (out / "report" / "index.html").read_text()
    with (folder / "per_patient.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {float(row["recall"]) for row in rows} == {0}
