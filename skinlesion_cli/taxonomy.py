"""The seven diagnostic classes of ISIC 2018 Task 3, in the order of the official ground truth."""

from __future__ import annotations

import re
import unicodedata
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
MALIGNANT: Final = "malignant"  # all of them together, where a class could be named too

DISCLAIMER: Final[str] = "Research use only. Not a medical device."

# Names of the classes as people write them in tables and folder names, compared by `plain_name`. Only names
# that leave no doubt: "keratosis" or "carcinoma" alone are in none of them. Histological kinds as HAM10000
# groups them (Tschandl et al. 2018, doi:10.1038/sdata.2018.161, table 2 and text).
CLASS_SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "MEL": (
        "melanoma",
        "melanomas",
        "malignant melanoma",
        "melanoma in situ",
        "invasive melanoma",
        "melanoma invasive",
        "melanoma nos",
        "melanoma metastasis",
        "melanoma less than 0.76 mm",
        "melanoma 0.76 to 1.5 mm",
        "melanoma more than 1.5 mm",
        "lentigo maligna",
        "lentigo maligna melanoma",
        "nodular melanoma",
        "superficial spreading melanoma",
        "acral lentiginous melanoma",
        "amelanotic melanoma",
    ),
    "NV": (
        "nevus",
        "naevus",
        "nevi",
        "naevi",
        "melanocytic nevus",
        "melanocytic naevus",
        "melanocytic nevi",
        "melanocytic naevi",
        "nev",
        "nevus nos",
        "nevocellular nevus",
        "benign nevus",
        "common nevus",
        "atypical nevus",
        "dysplastic nevus",
        "clark nevus",
        "congenital nevus",
        "blue nevus",
        "spitz nevus",
        "reed nevus",
        "reed or spitz nevus",
        "recurrent nevus",
        "combined nevus",
        "dermal nevus",
        "intradermal nevus",
        "junctional nevus",
        "compound nevus",
        "mole",
        "moles",
    ),
    "BCC": ("basal cell carcinoma", "basal cell carcinomas", "basal cell cancer", "basalioma"),
    "AKIEC": (
        "ak",
        "ack",
        "actinic keratosis",
        "actinic keratoses",
        "solar keratosis",
        "solar keratoses",
        "solar or actinic keratosis",
        "bowen",
        "bowen disease",
        "bowens disease",
        "morbus bowen",
        "intraepithelial carcinoma",
        "intraepithelial carcinoma bowens disease",
        "intraepidermal carcinoma",
        "squamous cell carcinoma in situ",
        "squamous cell carcinoma in situ bowens disease",
        "actinic keratosis intraepithelial carcinoma",
        "actinic keratosis and intraepithelial carcinoma",
        "actinic keratoses and intraepithelial carcinoma",
        "actinic keratoses and intraepithelial carcinomae",
        "actinic keratoses and intraepithelial carcinoma bowens disease",
    ),
    "BKL": (
        "benign keratosis",
        "benign keratoses",
        "benign keratosis like lesion",
        "benign keratosis like lesions",
        "pigmented benign keratosis",
        "seborrheic keratosis",
        "seborrhoeic keratosis",
        "seborrheic keratoses",
        "seborrhoeic keratoses",
        "sk",
        "sek",
        "solar lentigo",
        "solar lentigines",
        "lentigo solaris",
        "senile lentigo",
        "lichen planus like keratosis",
        "lichenoid keratosis",
        "lplk",
    ),
    "DF": ("dermatofibroma", "dermatofibromas", "histiocytoma", "fibrous histiocytoma"),
    "VASC": (
        "vascular",
        "vascular lesion",
        "vascular lesions",
        "vascular skin lesion",
        "vascular skin lesions",
        "angioma",
        "angiomas",
        "cherry angioma",
        "hemangioma",
        "hemangiomas",
        "haemangioma",
        "haemangiomas",
        "angiokeratoma",
        "pyogenic granuloma",
    ),
}
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


def plain_name(text: str) -> str:
    """A name without what people write differently: case, punctuation, underscores, accents, repeated spaces.

    >>> plain_name("  Basal-cell_Carcinoma ")
    'basal cell carcinoma'
    """
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    letters = "".join(
        mark for mark in decomposed if not unicodedata.combining(mark) and mark not in "'\u2019"
    )
    return " ".join(re.findall(r"[^\W_]+", letters))


_CLASS_OF_NAME: Final[dict[str, str]] = {
    plain_name(name): label for label in CLASS_NAMES for name in (label, *CLASS_SYNONYMS[label])
}


def class_named(text: str) -> str | None:
    """The class that a name stands for (see `CLASS_SYNONYMS`); None for anything else, SCC among them."""
    return _CLASS_OF_NAME.get(plain_name(text))
