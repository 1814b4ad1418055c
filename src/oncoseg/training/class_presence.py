"""Whether the cases that a network learns from hold every class; checked before any training begins."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from oncoseg.errors import DataError
from oncoseg.folds import Cases, Split
from oncoseg.store import Prepared


class Seen:
    """Which classes cases have a pixel of; the masks of each case are read once at most."""

    def __init__(self, classes: Iterable[str]) -> None:
        self._names = dict(enumerate(classes, 1))
        self._of_case: dict[Path, set[int]] = {}

    def missing(self, side: Cases) -> list[str]:
        """Classes of which no case has a pixel; of a single class the pixels of tumour tell that already."""
        missing = dict(self._names)
        if len(missing) == 1:
            return []
        for cases in side.values():
            for case in cases:
                if not missing:
                    return []
                for index in self._in(case):
                    missing.pop(index, None)
        return list(missing.values())

    def _in(self, case: Prepared) -> set[int]:
        if case.folder not in self._of_case:
            self._of_case[case.folder] = case.with_voxels(self._names)
        return self._of_case[case.folder]


def check(train: Cases, seen: Seen) -> None:
    """Check that the training side has a pixel of every class, in whatever modality.

    Raises:
        DataError: it has none of some class.
    """
    if unseen := seen.missing(train):
        raise DataError(
            f"{without(unseen, 'train')}; expected some of every class of the recipe, to learn from. Choose "
            "another training.seed, or the sides yourself with --split FILE, or leave the class out of the "
            "recipe's classes (where a label is in two of them, the later one gets it)."
        )


def check_folds(prepared: Cases, splits: Sequence[Split], classes: Iterable[str]) -> None:
    """Check the same of every fold, before the first one is trained.

    Args:
        prepared: all cases with a mask.
        splits: of every fold.
        classes: the recipe's.

    Raises:
        DataError: the training side of some folds has none of a class; says which.
    """
    seen, lacking = Seen(classes), dict[str, list[str]]()
    for number, split in enumerate(splits, 1):
        for name in seen.missing(_train_side(prepared, split)):
            lacking.setdefault(name, []).append(str(number))
    if lacking:
        where = "; ".join(
            f"of {name} in fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}"
            for name, folds in lacking.items()
        )
        raise DataError(
            "No case under train, of any modality, has a pixel of some class after preparation: "
            f"{where} of {len(splits)}; expected some of every class of the recipe in every fold, to learn "
            "from. Add patients who have it, choose another training.seed or number of folds, or leave the "
            "class out of the recipe's classes (where a label is in two of them, the later one gets it)."
        )


def without(unseen: Sequence[str], side: str) -> str:
    """That a side lacks some classes."""
    return f"No case under {side}, of any modality, has a pixel of {' or '.join(unseen)} after preparation"


def _train_side(prepared: Cases, split: Split) -> Mapping[str, list[Prepared]]:
    return {
        name: [case for case in cases if case.patient in split[name]["train"]]
        for name, cases in prepared.items()
    }
