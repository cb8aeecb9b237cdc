"""The classes that a dataset is labelled with, and everything else that follows from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from skinlesion_cli.errors import DataError, UsageError, unknown_name
from skinlesion_cli.taxonomy.names import plain_name

if TYPE_CHECKING:
    import numpy as np

MALIGNANT: Final = "malignant"  # all malignant classes together, where a class could be named too
FEWEST_CLASSES, MOST_CLASSES = 2, 50
# Drawn in this order where a class has no colour of its own.
PALETTE: Final = (
    *("#b3272d", "#8a6f4e", "#2f6fab", "#c8641e", "#5b8c5a", "#7d5ba6", "#4f9d9d"),
    *("#c2578f", "#6b7a2c", "#3d4f8f", "#a8873b", "#5f6b73"),
)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,15}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LONGEST_TEXT = 120
# Words that tables, options and folders use for something else than a class: a column `age` in a table of
# labels, the malignant probability, `--class all`, `--map NAME=skip`.
RESERVED_CODES: Final = frozenset(
    {"malignant", "all", "skip", "none", "error", "unk", "unknown"}
    | {"image", "image_id", "isic_id", "id", "file", "filename", "path", "row", "status"}
    | {"lesion", "lesion_id", "patient", "patient_id", "label", "class", "diagnosis", "dx", "target"}
    | {"age", "age_years", "sex", "site", "part", "split", "source", "train", "val", "test"}
)


class ClassListError(DataError):
    """A class list that cannot be used.

    `entry` is the position of the class that is wrong (None: the list as a whole), `key` what is wrong of it.
    """

    def __init__(self, message: str, entry: int | None = None, key: str = "") -> None:
        super().__init__(message)
        self.entry, self.key = entry, key


@dataclass(frozen=True)
class DiagnosticClass:
    """One class.

    Attributes
    ----------
    code : short name in tables, options and folders.
    title : name in pages and messages.
    malignant : whether missing it is the harm that triage is to prevent.
    colour : `#rrggbb`, of its curves.
    synonyms : names that labels may have instead of its code or title; compared by `plain_name`.
    parents : what it is a kind of, the most specific first: classes of coarser lists (see `mapping`).
    """

    code: str
    title: str
    malignant: bool
    colour: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassList:
    """Two to fifty classes in a fixed order: that of probabilities, columns and logits.

    Raises
    ------
    ClassListError : the list cannot be used: a code twice or reserved, a name claimed twice, no benign class.
    """

    name: str
    entries: tuple[DiagnosticClass, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClassListError(f"{self.name!r} is not a valid name for a class list", key="name")
        if not FEWEST_CLASSES <= len(self.entries) <= MOST_CLASSES:
            raise ClassListError(
                f"a class list has {FEWEST_CLASSES} to {MOST_CLASSES} classes, not {len(self.entries)}"
            )
        for position, entry in enumerate(self.entries):
            _check_entry(position, entry)
            if entry.code.lower() in (before.code.lower() for before in self.entries[:position]):
                raise ClassListError(f"code {entry.code!r} occurs twice", position, "code")
        if all(entry.malignant for entry in self.entries):
            raise ClassListError("no class is benign: at least one needs `malignant: false`")
        _ = self._class_of_name

    @cached_property
    def codes(self) -> tuple[str, ...]:
        return tuple(entry.code for entry in self.entries)

    @property
    def n_classes(self) -> int:
        return len(self.entries)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Code -> position."""
        return {code: position for position, code in enumerate(self.codes)}

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """Code -> title."""
        return {entry.code: entry.title for entry in self.entries}

    @cached_property
    def malignant_codes(self) -> tuple[str, ...]:
        return tuple(entry.code for entry in self.entries if entry.malignant)

    @cached_property
    def is_malignant(self) -> np.ndarray:
        """bool (n_classes,), read-only."""
        import numpy as np

        mask = np.array([entry.malignant for entry in self.entries], dtype=bool)
        mask.setflags(write=False)
        return mask

    @property
    def has_malignant(self) -> bool:
        """Whether any class is malignant; without one there is no triage."""
        return bool(self.malignant_codes)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold the probabilities."""
        return tuple(map(self.column, self.codes))

    @staticmethod
    def column(code: str) -> str:
        """Name of the column that holds the probability of a class.

        >>> ClassList.column("MEL")
        'p_MEL'
        """
        return f"p_{code}"

    @cached_property
    def _class_of_name(self) -> Mapping[str, str]:
        claimed: dict[str, str] = {}
        for position, entry in enumerate(self.entries):
            named = [("code", entry.code), ("title", entry.title), *(("synonyms", s) for s in entry.synonyms)]
            for key, name in named:
                plain = plain_name(name)
                if not plain:
                    raise ClassListError(f"{name!r} has no letter or digit", position, key)
                other = claimed.setdefault(plain, entry.code)
                if other != entry.code:
                    raise ClassListError(
                        f"{entry.code} and {other} both claim the name {name!r}", position, key
                    )
        return claimed

    def class_named(self, text: str) -> str | None:
        """The code of the class that a code, title or synonym stands for; None for anything else."""
        return self._class_of_name.get(plain_name(text))

    def targets(self) -> tuple[str, ...]:
        """What a target or an alarm may be set for: every class, and `malignant` where one is."""
        return (*self.codes, MALIGNANT) if self.has_malignant else self.codes

    def require(self, code: str) -> int:
        """The position of a class by its code.

        Raises
        ------
        UsageError : the list has no such class.
        """
        if code not in self.index:
            raise UsageError(
                unknown_name(code, self.codes), f"Classes of {self.name}: {', '.join(self.codes)}"
            )
        return self.index[code]

    @cached_property
    def sha256(self) -> str:
        """Identity of the list: codes in order and which are malignant. Wording and colours may differ."""
        meaning = json.dumps([[entry.code, entry.malignant] for entry in self.entries])
        return hashlib.sha256(meaning.encode()).hexdigest()

    def agrees_with(self, other: ClassList) -> bool:
        """Whether probabilities and decisions of one can be read as those of the other."""
        return self.sha256 == other.sha256

    @property
    def described(self) -> str:
        """For messages: the name and the first twelve codes."""
        shown = ", ".join(self.codes[:12])
        more = f", and {self.n_classes - 12} more" if self.n_classes > 12 else ""
        return f"{self.name} ({shown}{more})"

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "name": self.name,
            "classes": [
                {
                    "code": entry.code,
                    "title": entry.title,
                    "malignant": entry.malignant,
                    "colour": entry.colour,
                    "synonyms": list(entry.synonyms),
                    "parents": list(entry.parents),
                }
                for entry in self.entries
            ],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ClassList:
        """From what `to_dict` made.

        Raises
        ------
        ClassListError : a key is missing, of another type, or unknown; or the list cannot be used.
        """
        if set(stored) != {"name", "classes"} or not isinstance(stored["classes"], list):
            raise ClassListError("a stored class list has `name` and `classes`")
        return cls(_text(stored, "name", None), tuple(map(_entry, range(10**6), stored["classes"])))


_KEYS = ("code", "title", "malignant", "colour", "synonyms", "parents")


def _entry(position: int, stored: Any) -> DiagnosticClass:
    if not isinstance(stored, Mapping) or set(stored) != set(_KEYS):
        raise ClassListError(f"a stored class has {', '.join(_KEYS)}", position)
    if not isinstance(stored["malignant"], bool):
        raise ClassListError("`malignant` must be true or false", position, "malignant")
    code, title, colour = (_text(stored, key, position) for key in ("code", "title", "colour"))
    names = [tuple(_texts(stored, key, position)) for key in ("synonyms", "parents")]
    return DiagnosticClass(code, title, stored["malignant"], colour, *names)


def _text(stored: Mapping[str, Any], key: str, position: int | None) -> str:
    if not isinstance(stored[key], str):
        raise ClassListError(f"`{key}` must be text", position, key)
    return str(stored[key])


def _texts(stored: Mapping[str, Any], key: str, position: int) -> list[str]:
    if not isinstance(stored[key], list) or not all(isinstance(each, str) for each in stored[key]):
        raise ClassListError(f"`{key}` must be a list of texts", position, key)
    return list(stored[key])


def _check_entry(position: int, entry: DiagnosticClass) -> None:
    if not _CODE.fullmatch(entry.code):
        raise ClassListError(
            f"code {entry.code!r}: a letter, then up to 15 letters, digits or underscores", position, "code"
        )
    if entry.code.lower() in RESERVED_CODES:
        raise ClassListError(
            f"code {entry.code!r} is reserved: tables or options use the word otherwise", position, "code"
        )
    if not _COLOUR.fullmatch(entry.colour):
        raise ClassListError(
            f"colour {entry.colour!r} of {entry.code} is not of the form '#b3272d'", position, "colour"
        )
    for key, name in (
        ("title", entry.title),
        *(("synonyms", each) for each in entry.synonyms),
        *(("parents", each) for each in entry.parents),
    ):
        if not name.strip() or len(name) > _LONGEST_TEXT or not name.isprintable():
            raise ClassListError(
                f"{name!r} ({entry.code}) is empty, not printable, or longer than {_LONGEST_TEXT} characters",
                position,
                key,
            )
