"""Patient metadata of one image: age, sex and body site, typed; one encoding for training and prediction.

What is not known is None, and all zeros in the encoding, which the network learns as a value of its own. A
word that is not in the vocabulary is never guessed at: it counts as not known, and whoever read it says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    # Prediction without a table does not load it.
    import pandas as pd

FIELDS: Final = ("age", "sex", "site")
MAX_AGE_YEARS: Final = 130.0
SEXES: Final = ("female", "male")
# Body sites of HAM10000.
SITES: Final = (
    "abdomen",
    "acral",
    "back",
    "chest",
    "ear",
    "face",
    "foot",
    "genital",
    "hand",
    "lower extremity",
    "neck",
    "scalp",
    "trunk",
    "upper extremity",
)
_WIDTH = {"age": 2, "sex": len(SEXES), "site": len(SITES)}
# Other words for exactly these, or for a part of one of them; regions that lie in two sites are left out.
_SEX_WORDS: Mapping[str, str] = {"f": "female", "m": "male", "woman": "female", "man": "male"}
_SITE_WORDS: Mapping[str, str] = {
    "posterior torso": "back",
    "anterior torso": "trunk",
    "lateral torso": "trunk",
    "torso": "trunk",
    "palms/soles": "acral",
    "palm": "acral",
    "sole": "acral",
    "genitalia": "genital",
    "upper limb": "upper extremity",
    "upperlimb": "upper extremity",
    "arm": "upper extremity",
    "upper arm": "upper extremity",
    "upperarm": "upper extremity",
    "forearm": "upper extremity",
    "lower limb": "lower extremity",
    "lowerlimb": "lower extremity",
    "leg": "lower extremity",
    "lower leg": "lower extremity",
    "thigh": "lower extremity",
}
_NOT_KNOWN = frozenset({"", "unknown", "nan", "na", "n/a", "none", "null", "-", "other", "o", "u"})
_DICOM_AGE = re.compile(r"(\d{3})([DWMY])")
_UNITS_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}


@dataclass(frozen=True)
class PatientMetadata:
    """What is known besides one image: age in years (0 to 130), one of `SEXES`, one of `SITES`; else None.

    Raises
    ------
    ValueError : a value that is none of these.
    """

    age_years: float | None = None
    sex: str | None = None
    site: str | None = None

    def __post_init__(self) -> None:
        if self.age_years is not None and not 0 <= self.age_years <= MAX_AGE_YEARS:
            raise ValueError(f"age_years must be 0 to {MAX_AGE_YEARS:g}, not {self.age_years}")
        for name, value, words in (("sex", self.sex, SEXES), ("site", self.site, SITES)):
            if value is not None and value not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")

    @property
    def known(self) -> tuple[str, ...]:
        """The fields that are known, in the order of `FIELDS`."""
        values = (self.age_years, self.sex, self.site)
        return tuple(name for name, value in zip(FIELDS, values, strict=True) if value is not None)

    def or_else(self, other: PatientMetadata) -> PatientMetadata:
        """These values, and those of `other` where they are not known."""
        mine = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **mine)

    @classmethod
    def of_texts(cls, age: str, sex: str, site: str) -> tuple[PatientMetadata, tuple[str, ...]]:
        """What three cells say, and those of them that are not understood, as `field 'text'`."""
        values: dict[str, float | str | None] = {}
        not_understood = []
        for name, text, read in (("age", age, _age_years), ("sex", sex, _sex), ("site", site, _site)):
            plain = " ".join(text.split()).lower()
            value = None if plain in _NOT_KNOWN else read(plain)
            if value is None and plain not in _NOT_KNOWN:
                not_understood.append(f"{name} {text.strip()!r}")
            values["age_years" if name == "age" else name] = value
        return cls(**values), tuple(not_understood)  # type: ignore[arg-type]


NOTHING_KNOWN: Final = PatientMetadata()


def n_columns(fields: Sequence[str]) -> int:
    """Width of the encoding of these fields (`age`, `sex`, `site`)."""
    return sum(_WIDTH[field] for field in fields)


def encode(patients: Sequence[PatientMetadata], fields: Sequence[str]) -> np.ndarray:
    """The input of a network's metadata branch, float32 (n, n_columns).

    `fields` : which to take. `age` becomes (1, years / 100); `sex` and `site` a 1 in the column of the value.
    What is not known is zeros.
    """
    encoded = np.zeros((len(patients), n_columns(fields)), dtype=np.float32)
    for row, patient in zip(encoded, patients, strict=True):
        start = 0
        for field in fields:
            if field == "age":
                if patient.age_years is not None:
                    row[start : start + 2] = 1.0, patient.age_years / 100.0
            else:
                value, words = (patient.sex, SEXES) if field == "sex" else (patient.site, SITES)
                if value is not None:
                    row[start + words.index(value)] = 1.0
            start += _WIDTH[field]
    return encoded


def of_manifest(rows: pd.DataFrame) -> list[PatientMetadata]:
    """Of rows with the text columns `age_years`, `sex` and `site`, empty where unknown; words that are not
    understood count as unknown.
    """
    cells = (rows[name] for name in ("age_years", "sex", "site"))
    return [PatientMetadata.of_texts(*each)[0] for each in zip(*cells, strict=True)]


def _age_years(text: str) -> float | None:
    dicom = _DICOM_AGE.fullmatch(text.upper())
    try:
        years = (
            int(dicom[1]) / _UNITS_PER_YEAR[dicom[2]] if dicom else float(text.replace(",", ".").rstrip("+"))
        )
    except ValueError:
        return None
    return years if math.isfinite(years) and 0 <= years <= MAX_AGE_YEARS else None


def _sex(text: str) -> str | None:
    word = _SEX_WORDS.get(text, text)
    return word if word in SEXES else None


def _site(text: str) -> str | None:
    plain = text.removeprefix("skin of ").removeprefix("the ")
    word = _SITE_WORDS.get(plain, plain)
    return word if word in SITES else None
