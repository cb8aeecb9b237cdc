"""Test-time augmentation: the 8 views of the square, each with the way back.

To add a view, add an entry here, and a mode that averages it; the same `skinlesion train` again then stores what
the networks say of it. Views act on the two image axes of an array (..., H, W, C) or, with `axes=(-2, -1)`, of a
map (..., H, W).
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

D4 = ("identity", "hflip", "vflip", "rot180", "transpose", "rot90", "rot270", "antitranspose")
PUBLISHED_ROUNDS = 10
PUBLISHED_SEED = 42


def published_views(rounds: int = PUBLISHED_ROUNDS, seed: int = PUBLISHED_SEED) -> tuple[str, ...]:
    """The published rounds: quarter turns (p 0.5, any number), then flips of columns and rows (p 0.5 each).

    The rounds are drawn once from the seed, not anew for every image, so that a prediction can be repeated and
    does not depend on its neighbours in the batch. Every draw is one of the 8 views; some come up twice.
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


# Modes by name: which views, in which order. `adaptive` goes through those of `d4` and stops early.
MODES: dict[str, tuple[str, ...]] = {
    "none": ("identity",),
    "flips": ("identity", "hflip", "vflip", "rot180"),
    "d4": D4,
    "published": published_views(),
}
ADAPTIVE = "adaptive"


def apply(name: str, images: np.ndarray, axes: Axes = _IMAGE) -> np.ndarray:
    """The view of a batch, contiguous."""
    return np.ascontiguousarray(VIEWS[name].do(images, axes))


def invert(name: str, maps: np.ndarray, axes: Axes = (-2, -1)) -> np.ndarray:
    """A map computed on the view, back in the frame of the image."""
    return np.ascontiguousarray(VIEWS[name].undo(maps, axes))
