"""Errors that a user can mend. Each message says what was expected, what came and what to do.

The command line prints them as one sentence with exit code 2; anything else is a bug and
keeps its traceback.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence

SHOWN_FAILURES = 5
"""How many cases that failed are named in the error."""


class OncosegError(Exception):
    """Base of every error that is about the user's input rather than about our code."""


class DataError(OncosegError):
    """An image, mask or folder that cannot be used as it is."""


class GeometryError(DataError):
    """Images that should share a grid and do not."""


class RecipeError(OncosegError):
    """An unknown recipe, an unknown field or a value outside its range."""


class RunError(OncosegError):
    """A run folder that is missing, incomplete, in the way or of another version."""


class FailedRun(RunError):
    """A training that cannot go on as it is, such as one whose loss is not finite; others can."""


class ElsewhereError(OncosegError):
    """An error of another process of the same training, which says it itself."""


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or what there is.

    Args:
        name: as it was given.
        known: what could have been meant.
        otherwise: said where nothing is near; the list of all names when left out.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise or f"expected one of {', '.join(names)}."


def check_arguments(what: str, function: Callable[..., object], given: Iterable[str]) -> None:
    """Check that a function takes arguments of these names.

    Raises:
        RecipeError: it does not; suggests the nearest that it takes by name.
    """
    takes = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in given:
        if name not in takes:
            raise RecipeError(f"{what} takes no argument {name!r}; {nearest(name, takes)}")


def failed_cases(failures: Sequence[str], total: int, what: str) -> DataError:
    """One error for several cases.

    Args:
        failures: what is wrong with each, and how to mend it.
        total: number of cases that were tried.
        what: ends the sentence "2 of 9 cases cannot be …"; says what became of the others.
    """
    if total == 1:
        return DataError(failures[0])
    shown = "\n".join(f"  {failure}" for failure in failures[:SHOWN_FAILURES])
    more = len(failures) - SHOWN_FAILURES
    rest = f"\n  … and {more} more" if more > 0 else ""
    return DataError(
        f"{len(failures)} of {total} cases cannot be {what}. Mend or remove these and run the same command "
        f"again:\n{shown}{rest}"
    )
