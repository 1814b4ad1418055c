"""Cases that a recipe leaves out because they are too large; each is told."""

from dataclasses import replace

from oncoseg import io
from oncoseg.datasets.base import Case, Problem, Scan
from oncoseg.errors import DataError
from oncoseg.volume import to_canonical

TOO_MANY_SLICES = "too-many-slices"
"""Kind of the problem that a case left out becomes."""


def without_large(scan: Scan, most_slices: int | None) -> Scan:
    """A data set without its cases of more axial slices, which are problems of it instead.

    Only headers are read. A case whose header cannot be read stays: preparing it says what is wrong.

    Args:
        scan: what was found.
        most_slices: a case may have; None for any number, and no file is opened.
    """
    if most_slices is None:
        return scan
    slices = {case.id: _axial_slices(case) for case in scan.cases}
    large = {name: count for name, count in slices.items() if count > most_slices}
    told = [
        Problem(
            TOO_MANY_SLICES,
            name,
            f"{name}: it has {count} axial slices, and the recipe takes at most {most_slices} (max_slices); "
            f"it is left out, as it is by `oncoseg inspect --max-slices {most_slices}`.",
        )
        for name, count in large.items()
    ]
    kept = tuple(case for case in scan.cases if case.id not in large)
    return replace(scan, cases=kept, problems=(*scan.problems, *told))


def left_out(scan: Scan) -> set[str | None]:
    """Ids of the cases that `without_large` took away."""
    return {problem.case for problem in scan.problems if problem.kind == TOO_MANY_SLICES}


def _axial_slices(case: Case) -> int:
    """By the header of any channel, as all are on one grid; 0 where none can be read."""
    for image in case.images.values():
        try:
            return to_canonical(io.read_grid(image))[0].grid[2]
        except DataError:
            continue
    return 0
