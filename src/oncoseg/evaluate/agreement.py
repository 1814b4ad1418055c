"""Readers against each other: the ceiling that any system's scores should be read against."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from oncoseg import io
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError
from oncoseg.evaluate import summary_tables
from oncoseg.evaluate.masks import FORMAT_VERSION, Result
from oncoseg.evaluate.scoring import TUMOUR, CaseScores, Scoring, of_patients, score_case
from oncoseg.evaluate.summary import describe, summarise, write
from oncoseg.evaluate.truths import fingerprints, in_canonical
from oncoseg.files import filled, new_folder
from oncoseg.labels import check_share, consensus, merge_labels
from oncoseg.processes import processes_within, run_each
from oncoseg.volume import check_same_grid

PAIRS, BOTH_MARKED, ONE_AGAINST_OTHERS = "reader-pair", "pair-both-marked", "one-against-others"
"""Groups: every two readers; those of them who both marked something in the case, which leaves out that
a reader saw nothing; and every reader against the consensus of the others."""

GIB_PER_PROCESS = 1.0
"""What a process needs, with the masks of all readers of a case."""

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

    Of every two readers each is the truth once, since their order in a data set means nothing.

    Args:
        data: a data set of a known layout.
        out: a new folder for the tables.
        scoring: what there is to choose about the metrics.
        share: of the other readers that must mark a voxel.
        workers: processes; None for one per processor, 0 for none besides this one.
        progress: called after every case.

    Raises:
        DataError: no case has several readers, or masks that cannot be used.
        RunError: `out` holds something or cannot be written.
    """
    chosen = scoring or Scoring()
    check_share(share)
    scan = open_dataset(data, need_images=False)
    cases = [case for case in scan.cases if len(case.masks) > 1]
    if not cases:
        raise DataError(f"No case in {data} has the masks of several readers; expected two or more.")
    count = processes_within(workers, None, GIB_PER_PROCESS, len(cases))
    out = new_folder(out, "The folder of the agreement")
    with filled(out):
        found: dict[str, list[CaseScores]] = {}
        for done, (name, rows) in enumerate(
            run_each(partial(_score_readers, chosen, share), cases, count, "scoring"), 1
        ):
            found[name] = rows
            if progress is not None:
                progress(done, len(cases))
    scores = [row for case in cases for row in found[case.id]]
    of_each = of_patients(scores, chosen)
    summary = summarise(of_each, chosen) | {"format_version": FORMAT_VERSION, "classes": {TUMOUR: [1]}}
    summary |= {"cases": len(cases), "failures": {}, "missing": [], "without_truth": []}
    summary |= {"synthetic": scan.synthetic, "maps_without_class": 0}
    write(out, scores, of_each, describe(of_each, chosen), summary, summary_tables.of_masks(summary))
    return Result(out, scores, of_each, summary, {}, [], {})


def _score_readers(scoring: Scoring, share: float, case: Case) -> tuple[str, list[CaseScores]]:
    try:
        volumes = {f"reader {number}": io.read(ref) for number, ref in enumerate(case.masks, 1)}
        check_same_grid(volumes)
        readers = [merge_labels(each.array[0], case.labels, {TUMOUR: ("*",)}) for each in volumes.values()]
    except DataError as error:
        raise DataError(f"Case {case.id}: {error}") from error
    first = next(iter(volumes.values()))
    spacing = first.spacing_mm if first.spacing_known else None
    axes, classes = first.sheared_axes_mm, {TUMOUR: (1,)}
    found = []
    for groups, name, truth, reader in _matches(readers, share):
        of_pair = f"{case.id}:{name}", case.patient, truth, reader, spacing
        rows = score_case(*of_pair, classes, scoring, axes_mm=axes)
        marks = fingerprints(in_canonical(truth, first), classes)
        found += [row._replace(group=group, truth=marks[row.label]) for group in groups for row in rows]
    return case.id, found


def _matches(
    readers: list[np.ndarray], share: float
) -> Iterator[tuple[Sequence[str], str, np.ndarray, np.ndarray]]:
    """Groups, name, truth and prediction of every comparison within a case."""
    marked = [reader.any() for reader in readers]
    for one, other in permutations(range(len(readers)), 2):
        groups = (PAIRS, BOTH_MARKED) if marked[one] and marked[other] else (PAIRS,)
        yield groups, f"{one + 1}-{other + 1}", readers[one], readers[other]
    for one, reader in enumerate(readers):
        others = [mask for number, mask in enumerate(readers) if number != one]
        yield (ONE_AGAINST_OTHERS,), f"{one + 1}-others", consensus(others, share), reader
