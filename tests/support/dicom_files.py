"""DICOM files of every kind, made with pydicom and the encoders of its plugins."""

from __future__ import annotations

import io

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid  # noqa: E402


def dicom(
    pixels: np.ndarray | list[bytes],
    photometric: str = "RGB",
    *,
    syntax: str = ExplicitVRLittleEndian,
    stored: int = 8,
    high: int | None = None,
    frames: int | None = None,
    shape: tuple[int, int] | None = None,
    samples: int | None = None,
    **elements: object,
) -> bytes:
    """A file of these pixels, or of these compressed frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VLPhotographicImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    coded = isinstance(pixels, list)
    size = shape or pixels.shape[1 if frames else 0 :][:2]  # type: ignore[union-attr]
    dataset.Rows, dataset.Columns = size
    dataset.SamplesPerPixel = samples or (1 if photometric.startswith(("MONO", "PALETTE")) else 3)
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 if stored <= 8 else 16
    dataset.BitsStored, dataset.HighBit = stored, stored - 1 if high is None else high
    dataset.PixelRepresentation = 0
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PixelData = encapsulate(pixels) if coded else pixels.tobytes()  # type: ignore[union-attr]
    for name, value in elements.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def without_image() -> bytes:
    """A structured report: a DICOM file that holds no picture."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = "nobody"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
