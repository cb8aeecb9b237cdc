"""Names as people write them, made comparable."""

from __future__ import annotations

import re
import unicodedata


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
