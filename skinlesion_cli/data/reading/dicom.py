"""Dermoscopic images in DICOM files (`pip install 'skinlesion[dicom]'`)."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from skinlesion_cli.data.metadata import NOTHING_KNOWN, PatientMetadata
from skinlesion_cli.data.reading.limits import MAX_PIXELS, MIN_SIDE_PX, check_file, check_size
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.errors import ImageError

# A file that says that it has more is damaged or is no set of photographs.
MAX_FRAMES: Final = 10_000
_PREAMBLE_BYTES = 128
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
_TRANSFER_SYNTAX = b"\x02\x00\x10\x00"
_LONG_VRS = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN")
# Beside the pixels of one frame; text and tables of real files take a few hundred kilobytes.
_HEADER_ALLOWANCE_BYTES = 16 << 20
# A data set of several frames stays in memory between them up to this size.
_KEPT_BYTES = 256 << 20
_NEEDS_EXTRA = "this is a DICOM file; reading it needs `pip install 'skinlesion[dicom]'`"

# pydicom warns of what does not follow the standard, in most files of most devices; what matters of it is an
# error here. For the whole process, because filters that are set for each image get mixed up between threads.
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def decode_dicom(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side_px: int = MIN_SIDE_PX,
    frame: int = 1,
) -> LoadedImage:
    """One frame of a DICOM image, from 1.

    Colour is converted from the file's photometric interpretation and its ICC profile; grey values are
    scaled from the stored range (`BitsStored`, at `HighBit`) to 0..255, MONOCHROME1 is inverted. Windows are
    not applied.

    Raises
    ------
    ImageError : pydicom or a decoder is not installed, or the file is damaged, holds no image, or has a size
        or values that are refused.
    """
    dataset = _dataset(source, max_pixels)
    try:
        width, height = int(dataset.Columns), int(dataset.Rows)
    except Exception as error:
        raise ImageError("not_an_image", f"this is not a DICOM image: {error}") from None
    check_size(width, height, max_pixels=max_pixels, min_side_px=min_side_px)
    from skinlesion_cli.data.reading.dicom_pixels import frame_pixels

    try:
        image = frame_pixels(dataset, frame, max_pixels)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("too_large", "the image does not fit into memory") from None
    except Exception as error:
        # pydicom and the decoders behind it raise nearly anything on damaged pixel data.
        raise ImageError("damaged", f"the pixels cannot be decoded: {_one_line(error)}") from None
    patient, not_understood = _patient(dataset)
    return replace(image, patient=patient, not_understood=not_understood)


def _patient(dataset: Any) -> tuple[PatientMetadata, tuple[str, ...]]:
    """PatientAge, PatientSex, and AnatomicRegionSequence or else BodyPartExamined; see `LoadedImage`."""
    try:
        regions = dataset.get("AnatomicRegionSequence") or ()
        meanings = [str(region.get("CodeMeaning", "") or "") for region in regions[:1]]
        sites = [*meanings, str(dataset.get("BodyPartExamined", "") or "")]
        age, sex = (str(dataset.get(name, "") or "") for name in ("PatientAge", "PatientSex"))
    except Exception:
        # The picture is whole, whatever is wrong with the elements about the patient.
        return NOTHING_KNOWN, ("patient elements that cannot be read",)
    readings = [PatientMetadata.of_texts(age, sex, site) for site in sites]
    return next((each for each in readings if each[0].site is not None), readings[0])


def patient_id(source: Path) -> str:
    """PatientID of a DICOM file; empty where it has none, or cannot be read."""
    try:
        return str(_header(source).get("PatientID", "") or "").strip()
    except Exception:  # reading the image says what is wrong with the file
        return ""


def count_frames(source: Path | bytes) -> int:
    """Frames of a DICOM file by its header: 0 where it holds no image (directories, reports), else 1 or more.

    A file that cannot be read counts as one frame, which gets a row that says why.

    Raises
    ------
    ImageError : `too_complex`: it says that it has more frames than it can hold, or than anybody photographs.
    """
    try:
        dataset = _header(source)
        if "Rows" not in dataset or "Columns" not in dataset:
            return 0
        frames = int(dataset.get("NumberOfFrames") or 1)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
        least = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
        compressed = syntax.startswith("1.2.840.10008.1.2.4") or syntax in (_DEFLATED, "1.2.840.10008.1.2.5")
        possible = size // (8 if compressed else max(least * int(dataset.get("BitsAllocated", 8)) // 8, 1))
    except Exception:
        return 1
    if frames > max(min(MAX_FRAMES, possible), 1):
        raise ImageError("too_complex", f"the file says that it has {frames:,} frames")
    return max(frames, 1)


def _header(source: Path | bytes) -> Any:
    import pydicom

    content: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    if _syntax_of(source) == _DEFLATED:
        return _dataset(source, MAX_PIXELS)
    return pydicom.dcmread(content, stop_before_pixels=True, force=_has_no_prefix(source))


def _dataset(source: Path | bytes, max_pixels: int) -> Any:
    try:
        import pydicom
    except ImportError:
        raise ImageError("needs_extra", _NEEDS_EXTRA) from None
    if isinstance(source, Path):
        check_file(source)
    try:
        if _syntax_of(source) == _DEFLATED:
            return _inflated(source, 3 * max_pixels + _HEADER_ALLOWANCE_BYTES)
        if isinstance(source, bytes):
            return pydicom.dcmread(io.BytesIO(source), force=_has_no_prefix(source))
        status = source.stat()
        if status.st_size <= _KEPT_BYTES:
            return _kept(source, status.st_mtime_ns, status.st_size)
        return pydicom.dcmread(source, force=_has_no_prefix(source))
    except ImageError:
        raise
    except OSError as error:
        raise ImageError("unreadable", f"cannot be opened: {error.strerror or error}") from None
    except Exception as error:
        raise ImageError("not_an_image", f"this is not a DICOM image: {_one_line(error)}") from None


@lru_cache(maxsize=1)
def _kept(path: Path, _modified_ns: int, _size: int) -> Any:
    """The data set of the last file: its frames are asked for one after the other."""
    import pydicom

    return pydicom.dcmread(path, force=_has_no_prefix(path))


def _start(source: Path | bytes, size: int = 4096) -> bytes:
    if isinstance(source, bytes):
        return source[:size]
    with source.open("rb") as file:
        return file.read(size)


def _has_no_prefix(source: Path | bytes) -> bool:
    """Whether it is a bare data set; pydicom then has to be told to go on."""
    from skinlesion_cli.data.reading.kinds import DICOM, kind_of

    head = _start(source)
    return head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM" and kind_of(head, "") is DICOM


def _syntax_of(source: Path | bytes) -> str:
    """The transfer syntax, read by hand: pydicom inflates without limit before it can be asked."""
    found = _meta_end(_start(source))
    return found[0] if found else ""


def _meta_end(head: bytes) -> tuple[str, int] | None:
    """The transfer syntax, and where the meta information ends (PS3.10, 7.1); None where there is none."""
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return None
    position, syntax = _PREAMBLE_BYTES + 4, ""
    while position + 12 <= len(head) and head[position : position + 2] == b"\x02\x00":
        long = head[position + 4 : position + 6] in _LONG_VRS
        start = position + (12 if long else 8)
        length = int.from_bytes(head[start - (4 if long else 2) : start], "little")
        if head[position : position + 4] == _TRANSFER_SYNTAX:
            syntax = head[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        position = start + length
    return syntax, position


def _inflated(source: Path | bytes, limit: int) -> Any:
    """A deflated data set, unpacked up to a limit.

    Raises
    ------
    ImageError : `too_large` or `damaged`.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    data = source if isinstance(source, bytes) else source.read_bytes()
    end = (_meta_end(data[:4096]) or ("", 0))[1]
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(data[end:], limit + 1)
    except zlib.error as error:
        raise ImageError("damaged", f"the deflated data cannot be unpacked: {error}") from None
    if len(content) > limit:
        raise ImageError("too_large", f"the file unpacks to more than {limit:,} bytes (--max-pixels)")
    if not stream.eof:
        raise ImageError("truncated", "the deflated data are cut off")
    dataset = read_dataset(io.BytesIO(content), is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = _EXPLICIT_LITTLE_ENDIAN
    return dataset


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
