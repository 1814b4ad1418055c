"""Where the data of a training lie, how they are read, and what the user states of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncoseg.datasets.base import Problem, Scan
from oncoseg.datasets.channels import channel_name
from oncoseg.errors import DataError, nearest
from oncoseg.recipe import Recipe
from oncoseg.regions import Box, read_box
from oncoseg.training.record import NOT_STATED

Remark = Callable[[str, Sequence[Problem]], None]
"""Called with a modality and what is doubtful about its labels, its split or its images."""

Opened = Callable[[str, Scan], None]
"""Called with a modality and what was found in its data set, before it is prepared."""


@dataclass(frozen=True)
class Sources:
    """The data sets of a training. Where only the folders are to be said, a plain mapping does.

    Attributes:
        folders: modality → folder of its data set.
        channels: modality → channel → what its series are called, of DICOM folders; see `open_dataset`.
        accept_implausible: take images that cannot be what they are said to be; see `plausibility`.
        licences: modality → under which licence its data may be used, in the user's words, for the record.
        origins: modality → where its data come from, likewise.
        remark: called for each modality with what is doubtful about its labels, its split or its images.
        boxes: modality → case id → the part of it that is seen, on its canonical grid; see `cascade_folder`.
        cases: modality → ids of the only cases that there are; None for all.
        opened: called for each modality with what was found, guesses and problems, before it is prepared.
        unlabelled: modality → another folder of scans that are learnt from without a mask.
    """

    folders: Mapping[str, Path]
    channels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    accept_implausible: bool = False
    licences: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    remark: Remark | None = None
    opened: Opened | None = None
    boxes: Mapping[str, Mapping[str, Box]] = field(default_factory=dict)
    cases: Mapping[str, Collection[str]] | None = None
    unlabelled: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, data: "Data") -> "Sources":
        """Folders, or what is complete already."""
        return data if isinstance(data, Sources) else cls(dict(data))

    @classmethod
    def of_records(cls, records: Mapping[str, Mapping[str, Any]]) -> "Sources":
        """Those that a run was trained on, by its `RunFolder.data`."""

        def stated(what: str) -> dict[str, str]:
            return {name: record[what] for name, record in records.items() if what in record}

        return cls(
            {name: Path(record["path"]) for name, record in records.items()},
            {name: record.get("channels", {}) for name, record in records.items()},
            any(record.get("accept_implausible") for record in records.values()),
            stated("licence"),
            stated("origin"),
            boxes={
                name: {case: read_box(box) for case, box in record.get("boxes", {}).items()}
                for name, record in records.items()
            },
            unlabelled={
                name: Path(record["unlabelled"]["path"])
                for name, record in records.items()
                if record.get("unlabelled", {}).get("path")
            },
        )

    def stated_in(self, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Records of the data with their licence and origin."""
        return stated(records, self.licences, self.origins)


Data = Mapping[str, Path] | Sources
"""Modality → folder of its data set, or all that can be said of them."""


def moved(
    records: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> dict[str, Mapping[str, Any]]:
    """The records of the data of a run, with other paths for those that lie elsewhere now.

    Args:
        records: by `RunFolder.data`.
        folders: modality → where its data lie now; those left out lie where they did.

    Raises:
        DataError: a folder for a modality that the run has not.
    """
    for name in folders:
        if name not in records:
            raise DataError(f"The run has no data of a modality {name!r}; {nearest(name, records)}")
    return {
        name: {**record, "path": str(folders[name].resolve())} if name in folders else record
        for name, record in records.items()
    }


def check_there(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the data of a run lie where its records say.

    Raises:
        DataError: they do not.
    """
    for name, record in records.items():
        if not Path(record["path"]).exists():
            raise DataError(
                f"The {name} data of this run are looked for at {record['path']}, which does not exist; "
                f"expected them there. Restore them, or say where they lie now: --data {name}=PATH."
            )


def check_modalities(recipe: Recipe, data: Mapping[str, Path]) -> None:
    """Check that there is one folder for each of the recipe's modalities.

    Raises:
        DataError: one is missing or one too many.
    """
    if set(data) != set(recipe.modalities):
        expected = " ".join(f"--data {name}=PATH" for name in recipe.modalities)
        some = set() < set(data) < set(recipe.modalities)
        part = f", or use a part of it with {' '.join(f'--only {name}' for name in data)}" if some else ""
        raise DataError(
            f"Recipe {recipe.name} needs data for {' and '.join(recipe.modalities)}; got "
            f"{' and '.join(data) or 'none'}. Give {expected}{part}."
        )


def channels_by_modality(recipe: Recipe, channels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Part a choice of series among the modalities that take these channels or have them as substitutes.

    Args:
        recipe: its modalities.
        channels: channel → what its series are called.

    Raises:
        DataError: a channel that no modality takes.
    """
    parted: dict[str, dict[str, str]] = {}
    for channel, pattern in channels.items():
        name = channel_name(channel)
        taking = [
            modality
            for modality, of in recipe.modalities.items()
            if name in (*of.channels, *of.substitutes.values())
        ]
        if not taking:
            known = dict.fromkeys(name for of in recipe.modalities.values() for name in of.channels)
            raise DataError(
                f"No modality of {recipe.name} takes the channel {channel}; expected one of "
                f"{', '.join(known)}."
            )
        for modality in taking:
            parted.setdefault(modality, {})[name] = pattern
    return parted


def check_stated(recipe: Recipe, licences: Mapping[str, str], origins: Mapping[str, str]) -> None:
    """Check that what a user states is about the recipe's modalities.

    Raises:
        DataError: it is about another.
    """
    for what, stated in (("licence", licences), ("origin", origins)):
        for name in sorted(set(stated) - set(recipe.modalities)):
            raise DataError(
                f"The {what} is stated for {name!r}, which is no modality of {recipe.name}; "
                f"{nearest(name, recipe.modalities)}"
            )


def stated(
    records: Mapping[str, Mapping[str, Any]], licences: Mapping[str, str], origins: Mapping[str, str]
) -> dict[str, Any]:
    """The records of the data with their licence and origin: as stated now, or else before."""
    return {
        name: {
            **record,
            "licence": licences.get(name, record.get("licence", NOT_STATED)),
            "origin": origins.get(name, record.get("origin", NOT_STATED)),
        }
        for name, record in records.items()
    }
