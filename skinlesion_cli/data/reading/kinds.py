"""What a file is, by its first bytes; its name counts only where the bytes do not tell.

Every kind of picture that is in use has a line here, whether it can be read or not: what looks like an image
gets a row, and the row of one that cannot be read says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

Reader = Literal["pillow", "heif", "dicom"]
# Enough for the signature of every kind below, and for the notes that this tool leaves in its own pictures.
HEAD_BYTES: Final = 4096
_DICOM_PREAMBLE_BYTES = 128
# In front of pictures that this tool wrote: PNG text chunks of overlays, the comment of thumbnails.
OWN_PNG_TEXT: Final = b"iTXtskinlesion:"
OWN_JPEG_COMMENT: Final = b"skinlesion thumbnail"


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    `name` is what messages and counts call it. `image`: it gets a row. `reader` is None where nothing here
    reads it; `advice` then says what to do. `pillow` is the format's name in Pillow.
    """

    name: str
    image: bool = False
    reader: Reader | None = None
    pillow: str = ""
    advice: str = ""


_CONVERT = "Convert it to PNG, TIFF or JPEG."
JPEG = FileKind("JPEG", True, "pillow", "JPEG")
PNG = FileKind("PNG", True, "pillow", "PNG")
GIF = FileKind("GIF", True, "pillow", "GIF")
BMP = FileKind("BMP", True, "pillow", "BMP")
TIFF = FileKind("TIFF", True, "pillow", "TIFF")
WEBP = FileKind("WebP", True, "pillow", "WEBP")
AVIF = FileKind("AVIF", True, "pillow", "AVIF")
JPEG_2000 = FileKind("JPEG 2000", True, "pillow", "JPEG2000")
HEIF = FileKind("HEIF", True, "heif", "HEIF")
DICOM = FileKind("DICOM", True, "dicom")
OWN_OUTPUT = FileKind("picture written by skinlesion")
EMPTY = FileKind("empty file")

_RAW = FileKind(
    "camera raw",
    True,
    advice="Develop it in the camera's software and export TIFF, PNG or JPEG with sRGB colours.",
)
_VIDEO = FileKind("video", True, advice="Export the frames to be judged as PNG.")
_UNREAD = {
    "JPEG XL": FileKind("JPEG XL", True, advice="Convert it with `djxl in.jxl out.png`."),
    **{
        name: FileKind(name, True, advice=_CONVERT)
        for name in (
            *(
                "JPEG XR",
                "Photoshop",
                "PostScript",
                "PNM",
                "icon",
                "QOI",
                "OpenEXR",
                "Radiance HDR",
                "DDS",
                "BPG",
            ),
            *(
                "FLIF",
                "FITS",
                "GIMP",
                "DjVu",
                "PCX",
                "Sun raster",
                "SGI",
                "Targa",
                "SVG",
                "metafile",
                "JBIG2",
            ),
            *("JPEG-LS", "NIfTI"),
        )
    },
}

_SIGNATURES: tuple[tuple[bytes, FileKind], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II\xbc", _UNREAD["JPEG XR"]),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"IIU\0", _RAW),
    (b"II*\0\x10\0\0\0CR", _RAW),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"FOVb", _RAW),
    (b"\0MRM", _RAW),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG_2000),
    (b"\xff\x4f\xff\x51", JPEG_2000),
    (b"\xff\x0a", _UNREAD["JPEG XL"]),
    (b"\0\0\0\x0cJXL \r\n\x87\n", _UNREAD["JPEG XL"]),
    (b"8BPS", _UNREAD["Photoshop"]),
    (b"%!PS", _UNREAD["PostScript"]),
    (b"\xc5\xd0\xd3\xc6", _UNREAD["PostScript"]),
    (b"\0\0\1\0", _UNREAD["icon"]),
    (b"\0\0\2\0", _UNREAD["icon"]),
    (b"icns", _UNREAD["icon"]),
    (b"qoif", _UNREAD["QOI"]),
    (b"v/1\x01", _UNREAD["OpenEXR"]),
    (b"#?RADIANCE", _UNREAD["Radiance HDR"]),
    (b"#?RGBE", _UNREAD["Radiance HDR"]),
    (b"DDS ", _UNREAD["DDS"]),
    (b"BPG\xfb", _UNREAD["BPG"]),
    (b"FLIF", _UNREAD["FLIF"]),
    (b"SIMPLE  =", _UNREAD["FITS"]),
    (b"gimp xcf", _UNREAD["GIMP"]),
    (b"AT&TFORM", _UNREAD["DjVu"]),
    (b"\x59\xa6\x6a\x95", _UNREAD["Sun raster"]),
    (b"\x97JB2\r\n\x1a\n", _UNREAD["JBIG2"]),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"\xd7\xcd\xc6\x9a", _UNREAD["metafile"]),
    (b"\0\0\1\xba", _VIDEO),
    (b"\0\0\1\xb3", _VIDEO),
    (b"PK\x03\x04", FileKind("zip archive")),
    (b"PK\x05\x06", FileKind("zip archive")),
    (b"Rar!\x1a\x07", FileKind("rar archive")),
    (b"7z\xbc\xaf\x27\x1c", FileKind("7z archive")),
    (b"\x1f\x8b", FileKind("gzip file")),
    (b"BZh", FileKind("bzip2 file")),
    (b"\xfd7zXZ\0", FileKind("xz file")),
    (b"\x28\xb5\x2f\xfd", FileKind("zstd file")),
    (b"%PDF", FileKind("pdf")),
)
_BRANDS: dict[bytes, FileKind] = {
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"), HEIF),
    b"crx ": _RAW,
    b"jxl ": _UNREAD["JPEG XL"],
    **dict.fromkeys((b"jp2 ", b"jpx ", b"jph "), JPEG_2000),
}
# Formats of cameras that begin like a TIFF, whose first page is a thumbnail.
_RAW_SUFFIXES = frozenset(
    [
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dcr",
        ".dng",
        ".erf",
        ".fff",
        ".iiq",
        ".kdc",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".raf",
        ".raw",
        ".rw2",
        ".rwl",
        ".sr2",
        ".srf",
        ".srw",
        ".x3f",
    ]
)
_SUFFIXES: dict[str, FileKind] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"), JPEG),
    **dict.fromkeys((".png", ".apng"), PNG),
    **dict.fromkeys((".bmp", ".dib"), BMP),
    ".gif": GIF,
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8", ".svs"), TIFF),
    ".webp": WEBP,
    **dict.fromkeys((".avif", ".avifs"), AVIF),
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), HEIF),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c", ".jph", ".jhc"), JPEG_2000),
    **dict.fromkeys((".dcm", ".dicom", ".dic"), DICOM),
    **dict.fromkeys(_RAW_SUFFIXES, _RAW),
    ".jxl": _UNREAD["JPEG XL"],
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), _UNREAD["JPEG XR"]),
    **dict.fromkeys((".psd", ".psb"), _UNREAD["Photoshop"]),
    **dict.fromkeys((".eps", ".ps"), _UNREAD["PostScript"]),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".pfm"), _UNREAD["PNM"]),
    **dict.fromkeys((".tga", ".vda", ".icb", ".vst"), _UNREAD["Targa"]),
    **dict.fromkeys((".svg", ".svgz"), _UNREAD["SVG"]),
    **dict.fromkeys((".wmf", ".emf"), _UNREAD["metafile"]),
    ".ico": _UNREAD["icon"],
    ".pcx": _UNREAD["PCX"],
    ".exr": _UNREAD["OpenEXR"],
    ".hdr": _UNREAD["Radiance HDR"],
    ".jls": _UNREAD["JPEG-LS"],
    **dict.fromkeys((".nii", ".mha"), _UNREAD["NIfTI"]),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv"), _VIDEO),
}
# The value representations of the elements with which a data set may begin.
_FIRST_VRS = (b"UL", b"UI", b"CS", b"OB", b"SH", b"DA", b"TM", b"DT", b"LO")
_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)


def kind_of(head: bytes, name: str) -> FileKind:
    """The kind of a file from its first `HEAD_BYTES` bytes and its name.

    >>> kind_of(b"\\xff\\xd8\\xff\\xe0", "IM0001").name, kind_of(b"id,label\\n", "a.csv").name
    ('JPEG', 'csv')
    """
    suffix = PurePosixPath(name).suffix.lower()
    by_content = _by_content(head)
    if by_content is TIFF and suffix in _RAW_SUFFIXES:
        return _RAW
    by_suffix = _SUFFIXES.get(suffix)
    # A document that is called `x.jpg` stays an image that cannot be read: somebody expects it to be one.
    if by_content is not None and (by_content.image or by_suffix is None):
        return OWN_OUTPUT if _is_own(by_content, head) else by_content
    if by_suffix is not None:
        return by_suffix
    if not head:
        return EMPTY
    return FileKind(suffix[1:] if len(suffix) in range(2, 10) and suffix.isascii() else "without a suffix")


def has_image_suffix(name: str) -> bool:
    """Whether a name alone, of a file that may not be opened, says that it is an image."""
    kind = _SUFFIXES.get(PurePosixPath(name).suffix.lower())
    return kind is not None


def _is_own(kind: FileKind, head: bytes) -> bool:
    return (kind is PNG and OWN_PNG_TEXT in head) or (kind is JPEG and OWN_JPEG_COMMENT in head)


def _by_content(head: bytes) -> FileKind | None:
    if head[_DICOM_PREAMBLE_BYTES : _DICOM_PREAMBLE_BYTES + 4] == b"DICM" or _is_bare_data_set(head):
        return DICOM
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"AVI ": _VIDEO}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return BMP
    if head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3] in (b"\n", b" ", b"\r", b"\t"):
        return _UNREAD["PNM"]
    if head[257:262] == b"ustar":
        return FileKind("tar archive")
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in head.lower()):
        return _UNREAD["SVG"]
    return None


def _of_brands(head: bytes) -> FileKind:
    """An ISO base media file by its major brand, and where that is general by the compatible ones."""
    end = min(int.from_bytes(head[:4], "big"), len(head), 256)
    compatible = [head[at : at + 4] for at in range(16, end, 4)]
    major = _BRANDS.get(head[8:12])
    if major is HEIF and head[8:12] in (b"mif1", b"msf1", b"mif2"):
        return AVIF if b"avif" in compatible or b"avis" in compatible else HEIF
    return major or next((_BRANDS[brand] for brand in compatible if brand in _BRANDS), _VIDEO)


def _is_bare_data_set(head: bytes) -> bool:
    """Whether it begins like a DICOM data set that was written without preamble and prefix."""
    group, element = head[:2], int.from_bytes(head[2:4], "little")
    if group not in (b"\x02\0", b"\x08\0") or element > 0x20 or len(head) < 132:
        return False
    return head[4:6] in _FIRST_VRS or (head[4:8] == b"\x04\0\0\0" and element == 0)
