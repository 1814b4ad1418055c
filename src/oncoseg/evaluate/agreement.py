"""Readers against each other: the ceiling that any system's scores should be read against."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from oncoseg import io
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, OncosegError
from oncoseg.evaluate import summary_tables
from oncoseg.evaluate.masks import FORMAT_VERSION, Result
from oncoseg.evaluate.scoring import (
    IN_SOME_CASES,
    NO_SPACING,
    TUMOUR,
    UNDEFINED,
    CaseScores,
    Scoring,
    as_json,
    of_patients,
    score_case,
)
from oncoseg.evaluate.summary import describe, summarise, write
from oncoseg.evaluate.truths import fingerprints, in_canonical
from oncoseg.evaluate.unfinished import Unfinished
from oncoseg.files import filled
from oncoseg.io import ImageRef
from oncoseg.labels import check_share, consensus, merge_labels
from oncoseg.processes import processes_within, run_each
from oncoseg.volume import check_same_grid

PAIRS, BOTH_MARKED, ONE_AGAINST_OTHERS = "reader-pair", "pair-both-marked", "one-against-others"
"""Groups: every two readers; those of them who both marked something in the case, which leaves out that
a reader saw nothing; and, of three or more, every reader against the consensus of the others."""

BOTH_ORDERS = "both_orders"
"""The rule that leaves the difference of volumes undefined: two readers in both orders cancel."""

REMARKS = (
    "Readers against each other: the truth is one reader, or the consensus of the others, and the prediction "
    "is another reader. reader-pair: every two readers. pair-both-marked: those of them who both marked "
    "something in the case. one-against-others: every reader against the consensus of the others, where "
    "there are three or more.",
    "Of two readers each is the truth once, since neither is right. Precision therefore equals recall, and "
    "the mean difference of volumes is 0 by its making: it is not given of pairs, but the limits of "
    "agreement around it are. volume_error is the mean over a patient's comparisons, each by its own truth.",
)
"""What a reader of the tables has to know."""

GIB_PER_PROCESS, MASK_COPIES = 0.5, 4.0
"""What a process needs, and with it in times of the masks of all readers of a case."""

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


def reader_agreement(
    data: Path,
    out: Path,
    *,
    scoring: Scoring | None = None,
    share: float = 0.5,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Score the readers of a data set against each other.

    Of every two readers each is the truth once, since their order in a data set means nothing. Stopped, the
    same call goes on where it was.

    Args:
        data: a data set of a known layout.
        out: a new folder for the tables, or one that a stopped call has left.
        scoring: what there is to choose about the metrics.
        share: of the other readers that must mark a voxel.
        workers: processes; None for one per processor, 0 for none besides this one.
        progress: called after every case.

    Raises:
        DataError: no case has several readers, or none can be used.
        RunError: `out` holds something or cannot be written.
    """
    chosen = scoring or Scoring()
    check_share(share)
    scan = open_dataset(data, need_images=False)
    cases = [case for case in scan.cases if len(case.masks) > 1]
    if not cases:
        raise DataError(f"No case in {data} has the masks of several readers; expected two or more.")
    count = processes_within(workers, None, _gib_of(cases), len(cases))
    so_far = Unfinished(out, "The folder of the agreement", [as_json(chosen), share])
    with filled(out):
        found = {case.id: rows for case in cases if (rows := so_far.recall(case)) is not None}
        left = {case.id: case for case in cases if case.id not in found}
        unusable: dict[str, str] = {}
        if progress is not None:
            progress(len(found), len(cases))
        for done, (name, rows, why) in enumerate(
            run_each(partial(_score_or_reason, chosen, share), left.values(), count, "scoring"),
            len(found) + 1,
        ):
            found[name] = rows
            if why:
                unusable[name] = why
            else:
                so_far.keep(left[name], rows)
            if progress is not None:
                progress(done, len(cases))
        if len(unusable) == len(cases):
            raise DataError(f"No case can be used; the first: {next(iter(unusable.values()))}")
    scores = [row for case in cases for row in found[case.id]]
    of_each = _of_patients(scores, chosen)
    summary = summarise(of_each, chosen) | {"format_version": FORMAT_VERSION, "classes": {TUMOUR: [1]}}
    summary |= {"cases": len(cases), "failures": {}, "missing": [], "without_truth": []}
    summary |= {"synthetic": scan.synthetic, "maps_without_class": 0}
    summary |= {"readers": True, "remarks": [*REMARKS, *_about(unusable)], "left_out": unusable}
    write(out, scores, of_each, describe(of_each, chosen), summary, summary_tables.of_masks(summary))
    so_far.finish()
    return Result(out, scores, of_each, summary, {}, [], {})


def _gib_of(cases: Sequence[Case]) -> float:
    """What a process needs for the largest case."""
    return GIB_PER_PROCESS + MASK_COPIES * max(sum(map(_bytes_of, case.masks)) for case in cases) / 2**30


def _bytes_of(mask: ImageRef) -> int:
    try:
        return io.voxel_bytes(mask)
    except DataError:
        return 0  # reading it will say what is wrong


def _about(unusable: Mapping[str, str]) -> list[str]:
    """That cases were left out: there is no reader whose fault it is, and so no one whom it could cost."""
    if not unusable:
        return []
    first, why = next(iter(sorted(unusable.items())))
    several = "case was" if len(unusable) == 1 else "cases were"
    return [f"{len(unusable)} {several} left out, as the masks cannot be used; the first, {first}: {why}"]


def _of_patients(scores: Sequence[CaseScores], scoring: Scoring) -> list[CaseScores]:
    """The patients' scores, in which volumes of opposite orders do not cancel."""
    errors: dict[tuple[str, str], list[float]] = {}
    for row in scores:
        errors.setdefault((row.group, row.patient), []).append(row.values["volume_error"])
    return [_without_cancelling(row, errors[row.group, row.patient]) for row in of_patients(scores, scoring)]


def _without_cancelling(patient: CaseScores, errors: Sequence[float]) -> CaseScores:
    defined = [error for error in errors if not math.isnan(error)]
    values, rules = dict(patient.values), dict(patient.rules)
    if rules.get("volume_error") != NO_SPACING:
        values["volume_error"] = math.fsum(defined) / len(defined) if defined else math.nan
        if len(defined) == len(errors):
            rules.pop("volume_error", None)
        else:
            rules["volume_error"] = IN_SOME_CASES if defined else UNDEFINED
    if patient.group != ONE_AGAINST_OTHERS and not math.isnan(values["volume_difference_ml"]):
        values["volume_difference_ml"], rules["volume_difference_ml"] = math.nan, BOTH_ORDERS
    return patient._replace(values=values, rules=rules)


def _score_or_reason(scoring: Scoring, share: float, case: Case) -> tuple[str, list[CaseScores], str]:
    """Id, scores, and why there are none: one bad case must not cost the others'."""
    try:
        return case.id, _score_readers(scoring, share, case), ""
    except OncosegError as error:
        return case.id, [], str(error)


def _score_readers(scoring: Scoring, share: float, case: Case) -> list[CaseScores]:
    volumes = {f"reader {number}": io.read(ref) for number, ref in enumerate(case.masks, 1)}
    check_same_grid(volumes)
    readers = [merge_labels(each.array[0], case.labels, {TUMOUR: ("*",)}) for each in volumes.values()]
    first = next(iter(volumes.values()))
    spacing = first.spacing_mm if first.spacing_known else None
    axes, classes = first.sheared_axes_mm, {TUMOUR: (1,)}
    found = []
    for groups, name, truth, reader in _matches(readers, share):
        of_pair = f"{case.id}:{name}", case.patient, truth, reader, spacing
        rows = score_case(*of_pair, classes, scoring, axes_mm=axes)
        marks = fingerprints(in_canonical(truth, first), classes)
        found += [row._replace(group=group, truth=marks[row.label]) for group in groups for row in rows]
    return found


def _matches(
    readers: list[np.ndarray], share: float
) -> Iterator[tuple[Sequence[str], str, np.ndarray, np.ndarray]]:
    """Groups, name, truth and prediction of every comparison within a case."""
    marked = [reader.any() for reader in readers]
    for one, other in permutations(range(len(readers)), 2):
        groups = (PAIRS, BOTH_MARKED) if marked[one] and marked[other] else (PAIRS,)
        yield groups, f"{one + 1}-{other + 1}", readers[one], readers[other]
    if len(readers) < 3:  # the others are one reader, and every comparison was made already
        return
    for one, reader in enumerate(readers):
        others = [mask for number, mask in enumerate(readers) if number != one]
        yield (ONE_AGAINST_OTHERS,), f"{one + 1}-others", consensus(others, share), reader
