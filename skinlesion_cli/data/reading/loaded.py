"""What reading an image gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skinlesion_cli.data.metadata import NOTHING_KNOWN, PatientMetadata


@dataclass(frozen=True)
class LoadedImage:
    """An image as it was read.

    Attributes
    ----------
    pixels : uint8 (height, width, 3), upright sRGB.
    notes : what was done or assumed on the way, one short sentence each; empty for an ordinary image.
    patient : what the file says of the patient (DICOM alone does).
    not_understood : what it says of the patient in words that are not known, as `field 'text'`.
    reduced : it was decoded at a reduced scale: the file has more pixels.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()
    patient: PatientMetadata = NOTHING_KNOWN
    not_understood: tuple[str, ...] = ()
    reduced: bool = False
