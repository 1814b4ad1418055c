"""`prediction.json`, which a folder of predicted masks keeps beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oncoseg.files import write_json

RECORD_FILE = "prediction.json"
"""In an output folder: which weights made its masks, of which images, with which substitutes."""


def substitutions(out: Path) -> dict[str, dict[str, str]]:
    """Case → its missing channels → those used in their place, of all cases predicted into a folder."""
    return dict(read_record(out / RECORD_FILE).get("substituted", {}))


def remarks(out: Path) -> dict[str, list[str]]:
    """Case → what is odd or doubtful about its images, of all cases predicted into a folder."""
    return dict(read_record(out / RECORD_FILE).get("remarks", {}))


def add_remarks(out: Path, found: Mapping[str, list[str]]) -> None:
    """Take in what is odd or doubtful about more cases, or no longer."""
    record = read_record(out / RECORD_FILE)
    kept = {name: texts for name, texts in (record["remarks"] | found).items() if texts}
    write_json(out / RECORD_FILE, record | {"remarks": kept})


def read_record(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; nothing if there was none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
