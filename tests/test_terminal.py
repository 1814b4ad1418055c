"""What is shown of long work where there is no terminal."""

import pytest

from oncoseg.cli import terminal
from oncoseg.datasets.base import Problem


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
