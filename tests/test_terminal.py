"""What is shown of long work, on a terminal and elsewhere."""

import pytest
from rich.console import Console

from oncoseg.cli import terminal
from oncoseg.datasets.base import Problem
from oncoseg.training.status import Status


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test moves: its single value is the time."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_line_with_the_time_left_every_half_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress("predicting slices") as show:
        for done in range(1, 11):
            clock[0] += 10
            show(done, 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "predicting slices 3/10  left 0:01:10",
        "predicting slices 6/10  left 0:00:40",
        "predicting slices 9/10  left 0:00:10",
    ]


def test_short_work_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("reading") as show:
        clock[0] += 29
        show(1, 2)
        show(2, 2)
    assert capsys.readouterr().err == ""


def test_nothing_is_estimated_from_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("reading") as show:
        clock[0] += 60
        show(0, 2)
        show(1, 2)
    assert capsys.readouterr().err == "reading 1/2  left 0:01:00\n"


def test_problems_are_counted_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [
        Problem("missing-channel", "a", "Case a lacks T2."),
        Problem("empty", None, "Nothing there."),
        Problem("missing-channel", "b", "Case b lacks T1."),
    ]
    terminal.note_problems("mri", problems)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "mri: [missing-channel] Case a lacks T2. (the first of 2; `oncoseg inspect` lists them all)",
        "mri: [empty] Nothing there.",
    ]


BEFORE_ANY_SCORE = Status("pretrain", 1, 5, 5, 80, 0.75, 7384.0, {})
IN_THE_MIDDLE = Status("joint", 2, 30, 60, 80, 0.5, 65.4, {"mri": 0.8304, "ct": 0.5496})
FINISHED = IN_THE_MIDDLE._replace(step=80, scores={"mri": 0.9, "ct": 0.6}, validated=True)


def test_training_writes_an_estimate_and_every_finished_epoch_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with terminal.training_progress() as show:
        for step in range(1, 81):
            show(BEFORE_ANY_SCORE._replace(step=step))
        for step in range(1, 81):
            show(IN_THE_MIDDLE._replace(step=step))
        show(FINISHED)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "pretrain epoch 1/5  left 2:03:04  loss 0.750",
        "joint epoch 2/30 done  left 0:01:05  loss 0.500  Dice mri 0.900  ct 0.600",
    ]


def test_a_finished_epoch_tells_each_classs_dice(capsys: pytest.CaptureFixture[str]) -> None:
    each = {"mri": {}, "ct": {"liver": 0.9251, "tumour": 0.2749}}
    with terminal.training_progress() as show:
        for step in range(1, 81):
            show(IN_THE_MIDDLE._replace(step=step, class_scores=each))
        show(FINISHED._replace(class_scores=each))
    middle, finished = capsys.readouterr().err.splitlines()
    assert middle.endswith("last Dice mri 0.830  ct 0.550"), "a bar has no room for it"
    assert finished.endswith("Dice mri 0.900  ct 0.600 (liver 0.925, tumour 0.275)")


def test_a_terminal_shows_the_time_left_and_both_modalities_dice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    for variable, value in {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(variable, value)
    with terminal.training_progress() as show:
        show(BEFORE_ANY_SCORE)
        show(FINISHED)
        show(IN_THE_MIDDLE)
    captured = capsys.readouterr()
    assert captured.out == ""
    bar = captured.err.splitlines()[-2]  # the last line shows the cursor again
    for what in ("joint epoch 2/30", "left 0:01:05", "loss 0.500", "last Dice mri 0.830  ct 0.550"):
        assert what in bar
    assert "joint epoch 2/30 done  left 0:01:05  loss 0.500  Dice mri 0.900  ct 0.600" in captured.err
