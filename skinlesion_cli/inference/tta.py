"""Test-time augmentation: the 8 views of the square, each with its inverse, and views of its middle.

To add a view, add an entry here, and a mode that averages it; running the same `skinlesion train` again then
stores the networks' probabilities of it. Views act on the two image axes of an array (..., H, W, C) or, with
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
    """A view and its inverse: `undo(do(x)) == x`, shape included; None where the view omits a part of x."""

    name: str
    do: Callable[[np.ndarray, Axes], np.ndarray]
    undo: Callable[[np.ndarray, Axes], np.ndarray] | None


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


# Share of the height and of the width that a zoomed view sees: a lesion then has about the size that the
# random crops of training show it at, and the mean over whole and zoomed views is one over scales too.
ZOOMED_SHARE = 0.7


def _enlarge_middle(x: np.ndarray, axis: int) -> np.ndarray:
    """The middle of one axis stretched over its whole length: linear between pixel centres, same dtype."""
    length = x.shape[axis]
    places = (np.arange(length) + 0.5 - length / 2) * ZOOMED_SHARE + length / 2 - 0.5
    left = np.floor(places).astype(np.int64)
    shape = [1] * x.ndim
    shape[axis] = length
    share = (places - left).astype(np.float32).reshape(shape)
    before, after = (np.take(x, (left + step).clip(0, length - 1), axis=axis) for step in (0, 1))
    mixed = before + share * (after.astype(np.float32) - before)
    result: np.ndarray = (np.rint(mixed) if np.issubdtype(x.dtype, np.integer) else mixed).astype(x.dtype)
    return result


def _zoomed(turn: Callable[[np.ndarray, Axes], np.ndarray]) -> Callable[[np.ndarray, Axes], np.ndarray]:
    def do(x: np.ndarray, axes: Axes) -> np.ndarray:
        for axis in axes:
            x = _enlarge_middle(x, axis % x.ndim)
        return turn(x, axes)

    return do


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
        View("zoomed-transpose", _zoomed(_transpose), None),
        View("zoomed-rot90", _zoomed(_turn(1)), None),
        View("zoomed-rot270", _zoomed(_turn(-1)), None),
        View("zoomed-antitranspose", _zoomed(_antitranspose), None),
    )
}

D4 = ("identity", "hflip", "vflip", "rot180", "transpose", "rot90", "rot270", "antitranspose")
# The views of `d4`, half of them zoomed; whole and zoomed take turns,
# so that a few forward passes already include both.
ZOOM = (
    *("identity", "zoomed-transpose", "rot180", "zoomed-antitranspose"),
    *("hflip", "zoomed-rot90", "vflip", "zoomed-rot270"),
)
PUBLISHED_ROUNDS = 10
PUBLISHED_SEED = 42


def published_views(rounds: int = PUBLISHED_ROUNDS, seed: int = PUBLISHED_SEED) -> tuple[str, ...]:
    """The published rounds: quarter turns (p 0.5, any number), then flips of columns and rows (p 0.5 each).

    The rounds are drawn once from the seed, not anew for every image, so that a prediction can be repeated
    and does not depend on its neighbours in the batch. Every draw is one of the 8 views;
    some are drawn twice.
    """
    generator = np.random.default_rng(seed)
    probe = np.arange(4).reshape(2, 2)
    names = {VIEWS[name].do(probe, (0, 1)).tobytes(): name for name in D4}
    drawn = []
    for _ in range(rounds):
        seen = np.rot90(probe, int(generator.integers(4))) if generator.random() < 0.5 else probe
        seen = np.flip(seen, 1) if generator.random() < 0.5 else seen
        seen = np.flip(seen, 0) if generator.random() < 0.5 else seen
        drawn.append(names[np.ascontiguousarray(seen).tobytes()])
    return tuple(drawn)


# Modes by name: which views, in which order. `adaptive` takes those of one of them and stops early.
MODES: dict[str, tuple[str, ...]] = {
    "none": ("identity",),
    "flips": ("identity", "hflip", "vflip", "rot180"),
    "d4": D4,
    "zoom": ZOOM,
    "published": published_views(),
}
ADAPTIVE = "adaptive"


def apply(name: str, images: np.ndarray, axes: Axes = _IMAGE) -> np.ndarray:
    """The view of a batch, contiguous."""
    return np.ascontiguousarray(VIEWS[name].do(images, axes))


def is_whole(name: str) -> bool:
    """Whether the view shows all of the image, so that a map computed on it can be brought back."""
    return VIEWS[name].undo is not None


def invert(name: str, maps: np.ndarray, axes: Axes = (-2, -1)) -> np.ndarray:
    """A map computed on the view, back in the frame of the image.

    Raises
    ------
    ValueError : the view does not show all of the image.
    """
    undo = VIEWS[name].undo
    if undo is None:
        raise ValueError(f"{name} shows a part of the image: a map of the whole cannot be made from it")
    return np.ascontiguousarray(undo(maps, axes))
