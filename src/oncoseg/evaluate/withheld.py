"""Numbers of all patients together that a missing file would make look better are not given.

A missing map or mask may hold any number of false positives. Of one patient's metric the worst there could be
can stand for it; of a rate over everybody's voxels or lesions nothing can, since it depends on how large the
image is, and how many lesions a map could make up.
"""

import math
from collections.abc import Mapping
from typing import Any


def not_comparable(missing: int, whole: int, what: str) -> str:
    """As in `1 of 9 probability maps missing: not comparable`; empty where nothing is missing."""
    return f"{missing} of {whole} {what} missing: not comparable" if missing else ""


def forfeited(estimate: Mapping[str, Any], why: str) -> dict[str, Any]:
    """An estimate, or, where there is a reason, that it is not given and why."""
    if not why:
        return dict(estimate)
    return {**estimate, "value": math.nan, "low": None, "high": None, "note": f"not given: {why}"}
