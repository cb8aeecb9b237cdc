"""A map laid over its image, at the image's own size."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

_LEGEND_PX = 14


def overlay(image: np.ndarray, heat: np.ndarray, title: str) -> Image.Image:
    """The image with the map over it: strong places in colour, the rest as it is.

    Parameters
    ----------
    image : uint8 (height, width, 3). heat : float (h, w), >= 0, any scale; scaled to its own maximum.
    title : one line under the image, with what the colours cannot say.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    top = float(heat.max())
    scaled = heat / top if top > 0 else heat
    grown = Image.fromarray(scaled.astype(np.float32), mode="F").resize(
        (width, height), Image.Resampling.BICUBIC
    )
    strength = np.clip(np.asarray(grown), 0.0, 1.0)
    colours = colormaps["inferno"](strength)[..., :3] * 255.0
    # Weak places stay uncovered, so that the lesion itself can be seen.
    alpha = (0.6 * strength)[..., None]
    blended = image * (1.0 - alpha) + colours * alpha
    canvas = Image.new("RGB", (width, height + _LEGEND_PX + 14), "white")
    canvas.paste(Image.fromarray(blended.round().astype(np.uint8)), (0, 0))
    ramp = (colormaps["inferno"](np.linspace(0, 1, width))[None, :, :3] * 255).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(ramp, _LEGEND_PX // 2, axis=0)), (0, height + 2))
    ImageDraw.Draw(canvas).text((2, height + _LEGEND_PX - 2), title, fill="black")
    return canvas
