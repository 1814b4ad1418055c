import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncoseg import processes
from oncoseg.errors import RunError
from oncoseg.processes import run_each

STARTED = "ONCOSEG_TEST_STARTED"


def square(number: int) -> int:
    return number * number


def end_the_process(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def note_start() -> None:
    os.environ[STARTED] = "yes"


def was_started(number: int) -> tuple[int, bool]:
    return os.getpid(), os.environ.get(STARTED) == "yes"


def test_every_item_is_done_once_in_one_process_and_in_two() -> None:
    assert list(run_each(square, [1, 2, 3], 0, "squaring")) == [1, 4, 9]
    assert sorted(run_each(square, range(9), 2, "squaring")) == [n * n for n in range(9)]


def test_every_process_is_prepared_once_and_is_not_this_one() -> None:
    found = list(run_each(was_started, range(4), 2, "looking", note_start))
    assert all(started for _, started in found)
    assert os.getpid() not in {process for process, _ in found}
    assert STARTED not in os.environ


def test_a_process_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(RunError, match="A squaring process was ended from outside"):
        list(run_each(end_the_process, [1, 2], 2, "squaring"))


def test_closing_drops_what_has_not_begun(tmp_path: Path) -> None:
    results = run_each(leave_a_file, [tmp_path / str(n) for n in range(50)], 2, "writing")
    assert isinstance(results, Iterator)
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) < 20


def leave_a_file(path: Path) -> None:
    path.touch()


def test_free_memory_is_some_of_all_there_is() -> None:
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert 0 < processes.free_memory_gib() <= everything


def test_processors_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert processes.available_processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    assert processes.available_processors() == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processes.available_processors() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has taken")
@pytest.mark.parametrize(("bound", "taken"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_a_bound_on_this_process_bounds_what_is_free(
    bound: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(1024 * int(line.split()[1]) for line in lines if line.startswith(taken))
    most = used + (64 << 20)
    real, which = resource.getrlimit, getattr(resource, bound)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (most, most) if kind == which else real(kind))
    assert 0 <= processes.free_memory_gib() <= 64 / 1024
