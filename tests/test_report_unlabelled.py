"""What a report says of scans without a mask."""

import math

from matplotlib.figure import Figure

from oncoseg.report import curves
from oncoseg.report.contents import read_run
from test_report import lines, make_run


def test_the_consistency_is_one_curve_of_the_epochs_that_have_it(monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "svg_of", lambda figure: drawn.append(figure) or b"")
    log = [
        {"stage": stage, "epoch": epoch, "modality": modality, "consistency": value}
        | dict.fromkeys(("train_loss", "validation_loss", "train_dice", "validation_dice"), 0.5)
        for stage, epoch, modality, value in [
            ("pretrain", 1, "ct", math.nan),
            ("joint", 1, "mri", 0.25),
            ("joint", 1, "ct", 0.25),
            ("joint", 2, "mri", 0.125),
            ("joint", 2, "ct", 0.125),
        ]
    ]
    curve = curves.learning_curves(log, ["mri", "ct"])[-1]
    assert curve.name == "learning-consistency"
    assert "over 2 epochs: it begins at 0.25 and ends at 0.12" in curve.alt
    assert lines(drawn[-1])["training"] == [(2, 0.25), (3, 0.125)]


def test_hidden_masks_that_were_not_learnt_from_are_told(tmp_path):
    folder = make_run(tmp_path / "run")
    split = folder.split()
    split["mri"]["unlabelled"] = {"d": ["d1", "d2"], "e": ["e"]}
    folder.write_split(0, split)
    mri, ct = read_run(folder.path).data
    assert mri.remarks == ["3 cases of 2 patients count as without a mask and were not learnt from."]
    assert (mri.unlabelled, ct.remarks) == ((0, 0), [])
    data = folder.data()
    data["mri"]["unlabelled"] = {"patients": 2, "cases": 3}
    folder.write_data(data)
    (mri, _) = read_run(folder.path).data
    assert (mri.remarks, mri.unlabelled) == ([], (2, 3))
