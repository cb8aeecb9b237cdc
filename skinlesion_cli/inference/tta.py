"""Test-time augmentation: the 8 views of the square, each with its inverse, and views of parts of it.

To add a view, add an entry here, and a mode that averages it; running the same `skinlesion train` again then
stores the networks' probabilities of it. Views act on the two image axes of an array (..., H, W, C) or, with
`axes=(-2, -1)`, of a map (..., H, W). Crops are cut from the image at the resolution of its field
(`Preprocessing.field_px`), which is finer than the input of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from skinlesion_cli.config.schema import Interpolation
from skinlesion_cli.data.preprocess import FILTERS

Axes = tuple[int, int]
_IMAGE: Axes = (-3, -2)


@dataclass(frozen=True)
class View:
    """A view and its inverse: `undo(do(x)) == x`, shape included; None where the view omits a part of x.

    `box` are top, left and side of a crop, as shares of the side of the field; `do` turns what was cut out.
    """

    name: str
    do: Callable[[np.ndarray, Axes], np.ndarray]
    undo: Callable[[np.ndarray, Axes], np.ndarray] | None
    box: tuple[float, float, float] | None = None


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


_TURNS: dict[str, Callable[[np.ndarray, Axes], np.ndarray]] = {
    "identity": _same,
    "hflip": _flip_columns,
    "vflip": _flip_rows,
    "rot180": _turn(2),
    "transpose": _transpose,
    "rot90": _turn(1),
    "rot270": _turn(-1),
    "antitranspose": _antitranspose,
}
# Of the room that a crop leaves above it and to its left.
_PLACES = {
    "centre": (0.5, 0.5),
    "top-left": (0.0, 0.0),
    "top-right": (0.0, 1.0),
    "bottom-left": (1.0, 0.0),
    "bottom-right": (1.0, 1.0),
}


def _crop(percent: int, place: str, turn: str) -> View:
    side = percent / 100
    top, left = (share * (1 - side) for share in _PLACES[place])
    return View(f"crop{percent}-{place}-{turn}", _TURNS[turn], None, (top, left, side))


# All contain the centre of the image. The order spreads scales, places and turns, so that a few views are a
# mixture of them.
_CROPS = (
    _crop(70, "centre", "hflip"),
    _crop(85, "top-left", "vflip"),
    _crop(85, "bottom-right", "rot90"),
    _crop(50, "centre", "transpose"),
    _crop(85, "top-right", "rot270"),
    _crop(85, "bottom-left", "identity"),
    _crop(70, "centre", "rot180"),
    _crop(70, "top-left", "rot90"),
    _crop(70, "bottom-right", "hflip"),
    _crop(50, "centre", "antitranspose"),
    _crop(70, "top-right", "vflip"),
    _crop(70, "bottom-left", "rot270"),
)

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
        *_CROPS,
    )
}

D4 = ("identity", "hflip", "vflip", "rot180", "transpose", "rot90", "rot270", "antitranspose")
# The views of `d4`, half of them zoomed; whole and zoomed take turns,
# so that a few forward passes already include both.
ZOOM = (
    *("identity", "zoomed-transpose", "rot180", "zoomed-antitranspose"),
    *("hflip", "zoomed-rot90", "vflip", "zoomed-rot270"),
)
# 16 crops of 1, 0.85, 0.7 and 0.5 of the side: every fourth shows the whole image. Source: Yao et al., 2021
# (arXiv:2102.01284), who average 16 crops; Gessert et al., 2020 (arXiv:1910.03910), who use ordered ones.
CROPS = tuple(
    name
    for whole, start in zip(
        ("identity", "rot180", "transpose", "antitranspose"), range(0, 12, 3), strict=True
    )
    for name in (whole, *(view.name for view in _CROPS[start : start + 3]))
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
    "crops": CROPS,
    "published": published_views(),
}
ADAPTIVE = "adaptive"


def apply(name: str, images: np.ndarray, axes: Axes = _IMAGE) -> np.ndarray:
    """The view of a batch, contiguous; not for crops, see `show`."""
    return np.ascontiguousarray(VIEWS[name].do(images, axes))


def is_crop(name: str) -> bool:
    """Whether the view is cut from the field of the image."""
    return VIEWS[name].box is not None


def show(
    name: str, inputs: np.ndarray, fields: np.ndarray, interpolation: Interpolation = "antialias"
) -> np.ndarray:
    """The view of a batch as the network sees it, uint8 (n, s, s, 3).

    Parameters
    ----------
    inputs : the images at the size of the network's input, uint8 (n, s, s, 3).
    fields : the same images at the size that crops are cut from, uint8 (n, f, f, 3).
    interpolation : how crops are brought to the size of the input.
    """
    box = VIEWS[name].box
    if box is None:
        return apply(name, inputs)
    size_px, field_px = inputs.shape[2], fields.shape[2]
    top, left, side = (share * field_px for share in box)
    cut = [
        Image.fromarray(field).resize(
            (size_px, size_px), FILTERS[interpolation], (left, top, left + side, top + side)
        )
        for field in fields
    ]
    return apply(name, np.stack([np.asarray(crop) for crop in cut]))


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
