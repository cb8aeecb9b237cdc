"""Generated photographs with texture of their own, and the same photographs stored in another way."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageEnhance


def scene(seed: int, size: int = 300) -> Image.Image:
    """A dark spot on pink, in the middle as always, with hairs and texture of its own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    spot = np.exp(-((rows**2 + columns**2) / 0.04))
    image = np.stack([220 - 120 * spot, 150 - 90 * spot, 140 - 60 * spot], axis=2)
    texture = np.asarray(
        Image.fromarray(rng.normal(0, 1, (24, 24)).astype(np.float32)).resize((size, size), 3)
    )
    for _ in range(4):
        line = np.abs(rows - rng.uniform(-1, 1) * columns - rng.uniform(-0.4, 0.4)) < 0.006
        image[line] *= 0.5
    return Image.fromarray(np.clip(image + 12 * texture[:, :, None], 0, 255).astype(np.uint8))


def altered(image: Image.Image, size: int = 200) -> Image.Image:
    """Smaller, in other colours, and saved at a low quality."""
    small = ImageEnhance.Color(ImageEnhance.Brightness(image.resize((size, size))).enhance(1.15)).enhance(0.7)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")
