"""Errors that a user can mend. Each message says what was expected, what came and what to do.

The command line prints them as one sentence with exit code 2; anything else is a bug and
keeps its traceback.
"""


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


class MissingExtraError(OncosegError):
    """An optional dependency is not installed; the message carries the line that installs it."""
