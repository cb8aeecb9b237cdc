"""The seven diagnostic classes of ISIC 2018 Task 3, in the order of the official ground truth."""

from __future__ import annotations

from typing import Final

CLASS_NAMES: Final[tuple[str, ...]] = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
N_CLASSES: Final[int] = len(CLASS_NAMES)
CLASS_INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(CLASS_NAMES)}

CLASS_TITLES: Final[dict[str, str]] = {
    "MEL": "melanoma",
    "NV": "melanocytic nevus",
    "BCC": "basal cell carcinoma",
    "AKIEC": "actinic keratosis / intraepithelial carcinoma",
    "BKL": "benign keratosis-like lesion",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
}

# AKIEC is counted as malignant, as the published system and ISIC 2018 do: it is or may become
# a squamous cell carcinoma.
MALIGNANT_CLASSES: Final[tuple[str, ...]] = ("MEL", "BCC", "AKIEC")
MALIGNANT_INDEXES: Final[tuple[int, ...]] = tuple(CLASS_INDEX[name] for name in MALIGNANT_CLASSES)

# `dx` of HAM10000_metadata.csv.
HAM10000_DX: Final[dict[str, str]] = {name.lower(): name for name in CLASS_NAMES}

DISCLAIMER: Final[str] = "Research use only. Not a medical device."
