"""Which class of Pillow, or of a plugin of it, reads a kind of file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from skinlesion_cli.data.reading.kinds import FileKind
from skinlesion_cli.errors import ImageError

# The classes themselves, not `Image.open`: that tries others, some of which start programs (EPS), and refuses
# sizes by a limit of its own, which is not the user's.
_PLUGINS: dict[str, Callable[[io.BytesIO], Any]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
# Libraries that a build of Pillow may lack.
_BUILT_IN = {"JPEG2000": "jpg_2000", "AVIF": "avif"}


def pillow_class(kind: FileKind) -> Callable[[io.BytesIO], Any]:
    """The Pillow class that reads a kind of file.

    Raises
    ------
    ImageError : `unsupported_kind`, `needs_extra` or `not_an_image`.
    """
    if kind.reader == "heif":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise ImageError(
                "needs_extra",
                "this is a HEIF image (HEIC); reading it needs `pip install 'skinlesion[heif]'`",
            ) from None
        reader: Callable[[io.BytesIO], Any] = HeifImageFile
        return reader
    needed = _BUILT_IN.get(kind.pillow)
    if needed is not None and not features.check(needed):
        raise ImageError("unsupported_kind", f"this build of Pillow reads no {kind.name}; convert it to PNG")
    if kind.pillow in _PLUGINS:
        return _PLUGINS[kind.pillow]
    if kind.image:
        raise ImageError("unsupported_kind", f"{kind.name} is not read. {kind.advice}".strip())
    raise ImageError("not_an_image", f"this is not an image ({kind.name})")
