"""Outlines of masks along the edges of their pixels."""

import contourpy
import numpy as np


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines around what is marked, and around the holes in it.

    They run along the edges of pixels, so that they enclose what is marked and nothing else, also where
    pixels are large or not square.

    Args:
        mask: any type, axes row and column.

    Returns:
        Of each line its corners `n 2` as (column, row); the first is repeated at the end. The pixel
        (0, 0) reaches from −0.5 to 0.5.
    """
    # a border of background closes lines at the edge of the image
    padded = np.pad(np.asarray(mask, bool), 1).astype(float)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    return [_along_edges(np.asarray(line) - 1) for line in lines]


def _along_edges(line: np.ndarray) -> np.ndarray:
    """The corners between edges that follow each other.

    contourpy joins the middles of the edges: of each, one coordinate is a half and says where the edge lies.
    """
    here, there = line[:-1], line[1:]
    corners = np.where(here % 1 == 0.5, here, np.where(there % 1 == 0.5, there, (here + there) / 2))
    return np.concatenate([corners, corners[:1]])
