"""Pictures for a page: the image small, beside it the same with its map; and the image larger."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.artifacts.maps import relative_path
from skinlesion_cli.data.reading.kinds import OWN_JPEG_COMMENT
from skinlesion_cli.explain.overlay import blend, steps

MAX_WIDTH_PX: Final = 192
MAX_HEIGHT_PX: Final = 144
SUFFIX: Final = ".jpg"
# The picture of the large view, of at most so many pixels a side.
VIEW_SUFFIX: Final = ".view.jpg"
VIEW_PX: Final = 1024
_QUALITY = 80


def thumbnail(image: np.ndarray, heat: np.ndarray | None) -> bytes:
    """JPEG of the image, and with a map of two halves: the image left, the image with the map right.

    Parameters
    ----------
    image : uint8 (height, width, 3). heat : float (h, w), >= 0, any scale, or None.
    """
    height, width = image.shape[:2]
    ratio = min(MAX_WIDTH_PX / width, MAX_HEIGHT_PX / height)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    if heat is not None:
        small = np.concatenate([small, blend(small, steps(heat, *size))], axis=1)
    content = BytesIO()
    Image.fromarray(small).save(content, format="JPEG", quality=_QUALITY, comment=OWN_JPEG_COMMENT)
    return content.getvalue()


def view(image: np.ndarray) -> bytes:
    """JPEG of the image, uint8 (height, width, 3), at most `VIEW_PX` a side."""
    picture = Image.fromarray(image)
    picture.thumbnail((VIEW_PX, VIEW_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    content = BytesIO()
    picture.save(content, format="JPEG", quality=_QUALITY, comment=OWN_JPEG_COMMENT)
    return content.getvalue()


def thumbnail_name(identity: str, suffix: str = SUFFIX) -> str:
    """Where a picture of an image lies below the folder of thumbnails, with `/`."""
    return relative_path(identity, suffix=SUFFIX).removesuffix(f".cam{SUFFIX}") + suffix


def write_thumbnail(folder: Path, identity: str, image: np.ndarray, heat: np.ndarray | None) -> None:
    """Write the thumbnail of one image, and the picture of the large view."""
    atomic_write(folder / thumbnail_name(identity), thumbnail(image, heat), durable=False)
    atomic_write(folder / thumbnail_name(identity, VIEW_SUFFIX), view(image), durable=False)
