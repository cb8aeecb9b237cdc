"""Which kinds of images can be decoded with what is installed."""

from __future__ import annotations

from importlib.util import find_spec

from PIL import features

from skinlesion_cli.data.reading.dicom_pixels import decodable


def decoders() -> dict[str, bool]:
    """Name of each kind -> whether it can be read here; those of DICOM by their compression."""
    of_dicom = find_spec("pydicom") is not None
    return {
        **dict.fromkeys(("JPEG", "PNG", "TIFF", "BMP", "GIF"), True),
        "WebP": bool(features.check("webp")),
        "AVIF": bool(features.check("avif")),
        "JPEG 2000": bool(features.check("jpg_2000")),
        "HEIF": find_spec("pillow_heif") is not None,
        "DICOM": of_dicom,
        **{f"DICOM in {name}": of_dicom and there for name, there in decodable().items()},
    }
