"""Shared fixtures. Real data is used where it lies beside the checkout and skipped where it is not."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

SHARED_DATA = Path(os.environ.get("ONCOSEG_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))

settings.register_profile("clockless", deadline=None)  # a busy machine is no failure
settings.load_profile("clockless")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real patients' images, never part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set ONCOSEG_REAL_DATA to its folder")
    return SHARED_DATA
