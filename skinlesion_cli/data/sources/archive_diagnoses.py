"""Diagnoses of the ISIC archive and the seven classes: the one table that decides which is which.

The archive describes a lesion by up to five levels (`diagnosis_1` ... `diagnosis_5`, `iddx_1` ... in ISIC
2024), from "Benign" to "Nevus, NOS, Junctional"; before 2024 by one word (`diagnosis`). The deepest level
that is in the table decides; what is in it nowhere has no place among the seven classes.

Sources: the groups of HAM10000 (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), which count solar lentigo
and lichen-planus-like keratosis as BKL and Bowen's disease as AKIEC; for "lentigo NOS", Ha et al. 2020,
arXiv:2010.05351.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.shipped import shipped

# Class -> diagnoses as the archive writes them: levels of the hierarchy, then words from before 2024.
DIAGNOSES: Mapping[str, tuple[str, ...]] = {
    "MEL": (
        "Malignant melanocytic proliferations (Melanoma)",
        "Melanoma Invasive",
        "Melanoma in situ",
        "Melanoma, NOS",
        "Melanoma metastasis",
        "melanoma",
    ),
    "NV": ("Benign melanocytic proliferations", "Nevus", "Blue nevus"),
    "BCC": ("Basal cell carcinoma",),
    "AKIEC": (
        "Solar or actinic keratosis",
        "Squamous cell carcinoma in situ",
        "Squamous cell carcinoma in situ, Bowens disease",
        "actinic keratosis",
    ),
    "BKL": (
        "Seborrheic keratosis",
        "Pigmented benign keratosis",
        "Solar lentigo",
        "Ink-spot lentigo",
        "Lentigo NOS",
        "Lichen planus like keratosis",
        "lichenoid keratosis",
    ),
    "DF": ("Dermatofibroma",),
    "VASC": (
        "Benign soft tissue proliferations - Vascular",
        "Hemangioma",
        "Angiokeratoma",
        "Pyogenic granuloma",
        "angioma",
        "vascular lesion",
    ),
}
# Dropped, or AKIEC with --scc-as-akiec. (The archive calls 197 AKIEC images of HAM10000 so.)
SQUAMOUS_CELL_CARCINOMA = (
    "Squamous cell carcinoma, Invasive",
    "Squamous cell carcinoma, NOS",
    "squamous cell carcinoma",
)

_CLASS_OF: Mapping[str, str] = {
    plain_name(diagnosis): label for label, diagnoses in DIAGNOSES.items() for diagnosis in diagnoses
}
_SCC = frozenset(plain_name(diagnosis) for diagnosis in SQUAMOUS_CELL_CARCINOMA)


def class_of(levels: Sequence[str], options: SourceOptions) -> tuple[str, str]:
    """The class of a lesion, empty where it is dropped, and the diagnosis that decided, as it is written.

    Parameters
    ----------
    levels : the diagnosis from general to specific; unknown levels are empty.
    """
    known = [level for level in levels if level.strip()]
    if options.classes != shipped("isic2018"):
        return _by_synonyms(known, options)
    for level in reversed(known):
        name = plain_name(level)
        if name in options.class_map:
            return options.class_of(level) or "", level
        if name in _SCC:
            return "AKIEC" if options.scc_as_akiec else "", level
        if name in _CLASS_OF:
            return _CLASS_OF[name], level
    # The third level names the disease; deeper ones are variants of it.
    return "", known[min(2, len(known) - 1)] if known else "none"


def _by_synonyms(known: Sequence[str], options: SourceOptions) -> tuple[str, str]:
    """The deepest level that the class list knows by name."""
    for level in reversed(known):
        label = options.class_of(level)
        if label is not None:
            return label, level
    return "", known[min(2, len(known) - 1)] if known else "none"


def markdown() -> str:
    """The table for documents."""
    rows = [f"| {label} | {'; '.join(diagnoses)} |" for label, diagnoses in DIAGNOSES.items()]
    scc = "; ".join(SQUAMOUS_CELL_CARCINOMA)
    return "\n".join(
        [
            "| Class | Diagnosis in the ISIC archive |",
            "|---|---|",
            *rows,
            f"| AKIEC with `--scc-as-akiec`, else dropped | {scc} |",
            "| dropped, and counted by diagnosis | everything else |",
        ]
    )
