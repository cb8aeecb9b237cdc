"""Image files at their edges: what is refused, by which reason, and what passes."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.data.reading import images
from skinlesion_cli.data.reading.dicom import decode_dicom
from skinlesion_cli.errors import ImageError
from tests.support import tiny_datasets


def refused(act, *arguments, **options) -> str:
    with pytest.raises(ImageError) as told:
        act(*arguments, **options)
    return told.value.reason


# Images


def test_the_size_of_the_upright_image_without_decoding(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "plain.png")
    assert images.image_size(tmp_path / "turned.jpg") == (20, 40)
    assert images.image_size(tmp_path / "plain.png") == (40, 20)


def test_the_size_of_what_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 30)
    assert refused(images.image_size, tmp_path / "a.jpg") == "not_an_image"
    assert refused(images.image_size, tmp_path / "b.png") in ("damaged", "not_an_image")
    assert refused(images.image_size, tmp_path / "none.jpg") == "missing"
    assert refused(images.image_size, tmp_path) == "not_a_file"


def test_a_file_of_more_than_a_gigabyte_is_not_opened(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert refused(images.read_image, tmp_path / "a.jpg") == "too_large"


def test_a_file_that_must_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(tiny_datasets.jpeg(1))

    def refuse(path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refused(images.read_image, tmp_path / "a.jpg") == "unreadable"
    # A name longer than the file system takes cannot even be looked up.
    assert refused(images.read_image, tmp_path / ("x" * 300)) == "unreadable"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "too_large"),
        (OSError("image file is truncated"), "truncated"),
        (SyntaxError("broken"), "damaged"),
    ],
)
def test_whatever_a_decoder_raises_has_a_reason(error: Exception, reason: str, monkeypatch):
    def load(image) -> None:
        raise error

    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "GIF")
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.load", load)
    assert refused(images.read_image, file.getvalue()) == reason


def test_fill_bytes_between_jpeg_segments_do_no_harm():
    data = tiny_datasets.jpeg(3)
    padded = data[:2] + b"\xff\xff" + data[2:]
    assert (images.read_image(padded) == images.read_image(data)).all()


@pytest.mark.parametrize("cut", [b"", b"\xff\xd9", b"\xff\xe0\x00\x04ab"])
def test_a_jpeg_without_a_scan_is_refused(cut: bytes):
    data = tiny_datasets.jpeg(3)
    assert refused(images.read_image, data[: data.index(b"\xff\xda")] + cut) in ("truncated", "damaged")
    assert refused(images.read_image, data[: data.index(b"\xff\xda")] + b"\0" * 500) == "truncated"


# DICOM


def dicom(photometric: str, pixels: np.ndarray, **elements) -> bytes:
    dataset_module, uid = pytest.importorskip("pydicom.dataset"), pytest.importorskip("pydicom.uid")
    dataset = dataset_module.Dataset()
    dataset.file_meta = dataset_module.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = uid.VLPhotographicImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid.generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


GREY = np.full((24, 32), 100, np.uint8)


def test_a_dicom_palette_becomes_colours():
    table = np.zeros((3, 256), np.uint16)
    table[:, 100] = 65535, 257 * 128, 0
    names = ("Red", "Green", "Blue")
    palette = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in names}
    palette |= {f"{n}PaletteColorLookupTableData": t.tobytes() for n, t in zip(names, table, strict=True)}
    found = decode_dicom(dicom("PALETTE COLOR", GREY, **palette)).pixels
    assert (found.shape, found.dtype, found[3, 4].tolist()) == ((24, 32, 3), np.uint8, [255, 128, 0])


def test_dicom_that_is_refused(tmp_path, monkeypatch):
    signed = dicom("MONOCHROME2", GREY, PixelRepresentation=1)
    assert refused(decode_dicom, signed) == "unsupported_mode"
    deep = dicom("RGB", np.zeros((24, 32, 3), np.uint16))
    assert refused(decode_dicom, deep) == "unsupported_mode"
    assert refused(decode_dicom, dicom("MONOCHROME2", GREY[:8])) == "too_small"
    assert refused(decode_dicom, dicom("MONOCHROME2", GREY, PixelData=b"\0\0")) == "damaged"
    assert refused(decode_dicom, tmp_path / "none.dcm") == "missing"
    assert refused(decode_dicom, tmp_path) == "not_a_file"
    (tmp_path / "a.dcm").write_bytes(signed)
    monkeypatch.setattr("skinlesion_cli.data.reading.limits.MAX_FILE_BYTES", 10)
    assert refused(decode_dicom, tmp_path / "a.dcm") == "too_large"


def test_a_dicom_file_that_cannot_be_opened(monkeypatch):
    def refuse(source, **options) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pytest.importorskip("pydicom"), "dcmread", refuse)
    assert refused(decode_dicom, b"") == "unreadable"


def test_without_pydicom_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert refused(decode_dicom, b"") == "needs_extra"
