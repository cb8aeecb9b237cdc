"""Maps of a member for images as they were read: its preprocessing, its views, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from skinlesion_cli.explain.cam import class_maps, combined
from skinlesion_cli.explain.methods import FAST, library_maps
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.engine import EngineMember, ToInput


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
    if method == FAST:
        of_view = partial(_fast_maps, member)
    else:
        of_view = partial(library_maps, member.runtime.network, method=method)  # type: ignore[attr-defined]
    whole = [view for view in views if tta.is_whole(view)]
    total = [tta.invert(view, of_view(images=tta.apply(view, pixels), classes=classes)) for view in whole]
    return np.asarray(np.mean(total, axis=0), dtype=np.float32)


def ensemble_maps(
    members: Sequence[EngineMember], features: Sequence[np.ndarray], classes: np.ndarray
) -> np.ndarray:
    """Grad-CAM of the ensemble from the features of its forward pass, float32 (n, h, w).

    Parameters
    ----------
    features : one array float32 (n, n_features, h, w) per member. classes : int64 (n,), the class to explain.
    """
    maps = [class_maps(f, m.classifier, classes) for f, m in zip(features, members, strict=True)]
    return combined(maps, [member.weight for member in members])


def _fast_maps(member: EngineMember, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return class_maps(member.runtime.logits_and_features(images)[1], member.classifier, classes)
