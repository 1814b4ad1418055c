"""How a run, or the folds of a cross-validation, came about: what `record.json` says, in words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oncoseg.errors import RunError
from oncoseg.report import words
from oncoseg.run_folder import RunFolder

SUMS = ("minutes", "processor_seconds", "energy_joules")
"""Figures of every call that are added up."""

PLACE = re.compile(r"(?:^|\s)(?:[/~\\]|[A-Za-z]:[/\\]|file:)")
"""The beginning of a path, which may name a user or a machine."""

NOT_SHOWN = "stated as a place on a disk, which is not shown"
"""In place of a statement with a path in it."""


@dataclass(frozen=True)
class Row:
    """One call that trained, or one fold: when it began, how far it came, why it ended, and its sums."""

    name: str
    started: str
    reached: str
    ended: str
    sums: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """What the page shows of the records.

    Attributes:
        rows: the calls of a run, or its folds.
        in_all: the sums over all rows.
        circumstances: name → value, several where the calls differ: code, versions, hardware, seeds.
        data: modality → its `licence` and `origin`, as the user stated them.
        remarks: what was changed on the way.
    """

    rows: list[Row]
    in_all: tuple[str, ...]
    circumstances: dict[str, str]
    data: dict[str, dict[str, str]]
    remarks: list[str]


def read_origin(run: RunFolder, folds: Sequence[RunFolder]) -> Origin | None:
    """Read the record of a run, or those of a cross-validation's folds; None where there is none yet.

    Raises:
        RunError: a damaged record.
    """
    kept = [one for one in folds or [run] if (one.path / "record.json").is_file()]
    if not kept:
        return None
    try:
        return _origin({one.path.name: one.record() for one in kept}, bool(folds))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"The record in {kept[0].path} or a fold beside it is damaged ({type(error).__name__}); expected "
            "the record.json that training wrote. Restore it, or delete it to do without."
        ) from error


def _origin(records: Mapping[str, Mapping[str, Any]], of_folds: bool) -> Origin:
    calls = [call for record in records.values() for call in record["calls"]]
    if of_folds:
        rows = [_row(name, record["calls"], record["in_all"]) for name, record in records.items()]
    else:
        rows = [_row(str(number), [call], call) for number, call in enumerate(calls, 1)]
    seeds = [", ".join(f"{what} {value}" for what, value in one["seeds"].items()) for one in records.values()]
    facts = [_facts(call) for call in calls]
    names = dict.fromkeys(name for fact in facts for name in fact)
    circumstances = {name: _distinct(fact.get(name, "") for fact in facts) for name in names}
    return Origin(
        rows,
        _in_words({name: _sum(record["in_all"][name] for record in records.values()) for name in SUMS}),
        {"seeds": _distinct(seeds)} | circumstances,
        {name: _of_data(data) for name, data in next(iter(records.values()))["data"].items()},
        list(dict.fromkeys(remark for call in calls for remark in call["remarks"])),
    )


def _row(name: str, calls: Sequence[Mapping[str, Any]], sums: Mapping[str, Any]) -> Row:
    first, last = calls[0], calls[-1]
    started = str(first["started"])[:16].replace("T", " ") + " UTC"
    again = f" in {len(calls)} calls" if len(calls) > 1 else ""
    ended = last["ended"] or "not ended, or killed"
    return Row(name, started, _place(last["to"]) + again, ended, _in_words(sums))


def _place(place: Mapping[str, Any]) -> str:
    if place["epoch"] is None:
        return "the end"
    return f"{place['stage']} epoch {place['epoch']}, {words.counted(place['steps_of_epoch'], 'step')}"


def _in_words(sums: Mapping[str, Any]) -> tuple[str, ...]:
    """Minutes, minutes of processors, and energy in watt-hours."""
    minutes, seconds, joules = (sums.get(name) for name in SUMS)
    shown = (minutes, None if seconds is None else seconds / 60, None if joules is None else joules / 3600)
    return tuple("not measured" if value is None else f"{value:,.1f}" for value in shown)


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _facts(call: Mapping[str, Any]) -> dict[str, str]:
    """What a result can depend on besides recipe and data."""
    code, packages = call.get("revision"), call["packages"]
    changed = ", changed since" if code and code["changed"] else ""
    hardware = {name: value for name, value in call["hardware"].items() if name != "torch"}
    return {
        "oncoseg": packages["oncoseg"],
        "commit": f"{code['commit']}{changed}" if code else "not a checkout",
        **{name: "none" if value is None else str(value) for name, value in hardware.items()},
        "precision": str(call["precision"]),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items() if name != "oncoseg"),
    }


def _distinct(values: Iterable[str]) -> str:
    return "; also ".join(dict.fromkeys(values))


def _of_data(data: Mapping[str, Any]) -> dict[str, str]:
    stated = {name: str(data[name]) for name in ("licence", "origin")}
    return {name: NOT_SHOWN if PLACE.search(text) else text for name, text in stated.items()}
