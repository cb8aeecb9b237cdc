"""Test-time augmentation: the 8 views of the square, each with the way back.

To add a view, add an entry here. Views act on the two image axes of an array (..., H, W, C) or, with
`axes=(-2, -1)`, of a map (..., H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Axes = tuple[int, int]
_IMAGE: Axes = (-3, -2)


@dataclass(frozen=True)
class View:
    """A view is a pair: do, and undo. `undo(do(x)) == x`, shape included."""

    name: str
    do: Callable[[np.ndarray, Axes], np.ndarray]
    undo: Callable[[np.ndarray, Axes], np.ndarray]


def _same(x: np.ndarray, _axes: Axes) -> np.ndarray:
    return x


def _flip_columns(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.flip(x, axes[1])


def _flip_rows(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.flip(x, axes[0])


def _turn(quarters: int) -> Callable[[np.ndarray, Axes], np.ndarray]:
    return lambda x, axes: np.rot90(x, quarters, axes=axes)


def _transpose(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.swapaxes(x, *axes)


def _antitranspose(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.rot90(np.swapaxes(x, *axes), 2, axes=axes)


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("identity", _same, _same),
        View("hflip", _flip_columns, _flip_columns),
        View("vflip", _flip_rows, _flip_rows),
        View("rot180", _turn(2), _turn(2)),
        View("transpose", _transpose, _transpose),
        View("rot90", _turn(1), _turn(-1)),
        View("rot270", _turn(-1), _turn(1)),
        View("antitranspose", _antitranspose, _antitranspose),
    )
}

# Modes by name: which views, in which order.
MODES: dict[str, tuple[str, ...]] = {
    "none": ("identity",),
    "flips": ("identity", "hflip", "vflip", "rot180"),
    "d4": tuple(VIEWS),
}


def apply(name: str, images: np.ndarray, axes: Axes = _IMAGE) -> np.ndarray:
    """The view of a batch, contiguous."""
    return np.ascontiguousarray(VIEWS[name].do(images, axes))


def invert(name: str, maps: np.ndarray, axes: Axes = (-2, -1)) -> np.ndarray:
    """A map computed on the view, back in the frame of the image."""
    return np.ascontiguousarray(VIEWS[name].undo(maps, axes))
