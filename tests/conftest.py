"""Shared fixtures. Real data is used where it lies beside the checkout and skipped where it is not."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from oncoseg.run_folder import RunFolder

SHARED_DATA = Path(os.environ.get("ONCOSEG_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))

settings.register_profile("clockless", deadline=None)  # a busy machine is no failure
settings.register_profile("same", deadline=None, derandomize=True, database=None)  # the same examples always
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "clockless"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the programs of others that tests would have asked, where they are absent."""
    from outside import absent

    if missing := absent():
        terminalreporter.section("programs of others that are absent: their tests were skipped")
        for program in missing:
            terminalreporter.line(program)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C is heard also where the tests were started in the background, which makes a shell ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def known_salt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keys of patients are the same in every run, and no test touches this user's own salt."""
    from tiny_dicom import SALT

    folder = tmp_path_factory.mktemp("config")
    (folder / "oncoseg").mkdir()
    (folder / "oncoseg" / "patient-salt").write_bytes(SALT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real patients' images, never part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set ONCOSEG_REAL_DATA to its folder")
    return SHARED_DATA


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Tiny data sets by modality; tests that change one make their own."""
    from tiny import tiny_data

    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared store that trainings on `data` share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def whole(data: Mapping[str, Path], store: Path, tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run from beginning to end: one epoch on CT, two on both."""
    from oncoseg.run_folder import RunFolder
    from oncoseg.train import train
    from oncoseg.training.status import Outcome
    from tiny import tiny_recipe

    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = train(tiny_recipe(), data, out, store=store, workers=0)
    assert outcome == Outcome(out, True, "all epochs are done")
    return RunFolder(out)
