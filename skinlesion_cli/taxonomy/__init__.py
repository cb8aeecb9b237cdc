"""Class lists: what a dataset is labelled with, which of it is malignant, how lists map onto one another."""

from __future__ import annotations

from typing import Final

from skinlesion_cli.taxonomy.class_list import MALIGNANT, ClassList, ClassListError, DiagnosticClass
from skinlesion_cli.taxonomy.mapping import ClassMapping, mapping_between
from skinlesion_cli.taxonomy.names import plain_name
from skinlesion_cli.taxonomy.reading import parse_class_list, read_class_list
from skinlesion_cli.taxonomy.shipped import DEFAULT, SHIPPED, shipped, shipped_text

__all__ = [
    "CLASS_INDEX",
    "CLASS_NAMES",
    "CLASS_TITLES",
    "DEFAULT",
    "DISCLAIMER",
    "MALIGNANT",
    "MALIGNANT_CLASSES",
    "MALIGNANT_INDEXES",
    "N_CLASSES",
    "SCC_NAMES",
    "SHIPPED",
    "ClassList",
    "ClassListError",
    "ClassMapping",
    "DiagnosticClass",
    "class_named",
    "mapping_between",
    "parse_class_list",
    "plain_name",
    "read_class_list",
    "shipped",
    "shipped_text",
]

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

DISCLAIMER: Final[str] = "Research use only. Not a medical device."

# Invasive squamous cell carcinoma has no place among the seven classes; it is dropped,
# or counted as AKIEC if asked.
SCC_NAMES: Final[tuple[str, ...]] = (
    "scc",
    "squamous cell carcinoma",
    "squamous cell carcinomas",
    "squamous cell carcinoma nos",
    "squamous cell carcinoma invasive",
    "invasive squamous cell carcinoma",
)


def class_named(text: str) -> str | None:
    """The class of ISIC 2018 that a name stands for; None for anything else, SCC among them."""
    return shipped(DEFAULT).class_named(text)
