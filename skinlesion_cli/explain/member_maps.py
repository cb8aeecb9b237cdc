"""Maps of a member for images as they were read: its preprocessing, its views, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from skinlesion_cli.explain.cam import combined
from skinlesion_cli.explain.methods import DEFAULT, closed_maps, is_closed, library_maps
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.engine import EngineMember, ToInput
from skinlesion_cli.inference.runtimes.base import Outputs


def member_maps(
    to_input: ToInput,
    member: EngineMember,
    images: Sequence[np.ndarray],
    classes: np.ndarray,
    method: str,
    views: Sequence[str],
) -> np.ndarray:
    """One member's maps, float32 (n, h, w): the mean over views, each turned back into the image's frame.

    Views that show a part of the image are omitted; at least one has to show all of it.
    """
    pixels = np.stack([to_input(image, member.preprocessing) for image in images])
    if is_closed(method):
        of_view = partial(_closed_maps, member, method)
    else:
        of_view = partial(library_maps, member.runtime.network, method=method)  # type: ignore[attr-defined]
    whole = [view for view in views if tta.is_whole(view)]
    total = [tta.invert(view, of_view(images=tta.apply(view, pixels), classes=classes)) for view in whole]
    return np.asarray(np.mean(total, axis=0), dtype=np.float32)


def ensemble_maps(
    members: Sequence[EngineMember], layers: Sequence[Outputs], classes: np.ndarray, method: str = DEFAULT
) -> np.ndarray:
    """Maps of the ensemble from the outputs of its forward pass, float32 (n, h, w).

    Parameters
    ----------
    layers : of every member, for n images. classes : int64 (n,), the class to explain.
    method : one that `is_closed`.
    """
    maps = [closed_maps(method, o, m.classifier, classes) for o, m in zip(layers, members, strict=True)]
    return combined(maps, [member.weight for member in members])


def _closed_maps(member: EngineMember, method: str, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return closed_maps(method, member.runtime.outputs(images), member.classifier, classes)
