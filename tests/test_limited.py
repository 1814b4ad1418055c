"""Functions in a process of their own that may crash, hang or take all memory."""

import os
import resource
import sys
import time

import numpy as np
import pytest

from oncoseg.errors import DataError
from oncoseg.limited import LimitedProcess, LostError

MEMORY_BYTES = 256 << 20


def behave(how: str) -> object:
    match how:
        case "crash":
            os.abort()
        case "leave":
            os._exit(0)
        case "hang":
            time.sleep(3600)
        case "devour":
            return np.ones(1 << 30).sum()
        case "refuse":
            raise DataError("this is refused")
        case "fail":
            raise ValueError("a mistake")
        case "use":
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            np.ones(8 << 20)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        case "print":
            os.write(1, b"noise")
            os.write(2, b"noise")
    return os.getpid()


@pytest.fixture
def process() -> LimitedProcess[str, object]:
    return LimitedProcess(behave, MEMORY_BYTES, 60)


def test_results_come_from_one_other_process(process: LimitedProcess[str, object]) -> None:
    with process:
        first = process("behave")
        assert first != os.getpid()
        assert process("behave") == first


@pytest.mark.parametrize("how", ["crash", "leave", "devour", "fail"])
def test_what_ends_the_process_is_an_error_and_the_next_call_has_a_new_one(
    process: LimitedProcess[str, object], how: str
) -> None:
    with process:
        first = process("behave")
        with pytest.raises(LostError, match="ended unexpectedly"):
            process(how)
        assert process("behave") not in (first, os.getpid())


def test_a_call_that_takes_too_long_is_ended() -> None:
    took_long = pytest.raises(LostError, match=r"took more than 0\.5 seconds")
    with LimitedProcess(behave, MEMORY_BYTES, 0.5) as process, took_long:
        process("hang")


def test_errors_that_a_user_can_mend_come_through(process: LimitedProcess[str, object]) -> None:
    with process:
        first = process("behave")
        with pytest.raises(DataError, match="this is refused"):
            process("refuse")
        assert process("behave") == first


def test_native_noise_goes_nowhere(
    process: LimitedProcess[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    with process:
        process("print")
    assert capfd.readouterr() == ("", "")


def test_a_process_that_was_not_used_needs_no_closing(process: LimitedProcess[str, object]) -> None:
    process.close()
    process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator can be told")
def test_its_allocator_keeps_memory_for_the_next_call(process: LimitedProcess[str, object]) -> None:
    # 64 MiB that were given back would be zeroed again, page by page
    with process:
        process("use")
        assert process("use") < 100
