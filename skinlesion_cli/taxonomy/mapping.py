"""From a finer class list to a coarser one: probabilities are summed along parents, never split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList, DiagnosticClass

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ClassMapping:
    """Which class of `coarse` each class of `fine` counts as; `positions` are indexes into `coarse`."""

    fine: ClassList
    coarse: ClassList
    positions: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """The same codes in the same order."""
        return self.fine.codes == self.coarse.codes

    @property
    def matrix(self) -> np.ndarray:
        """float64 (n_fine, n_coarse), one 1 per row: probabilities @ matrix are those of the coarser list."""
        import numpy as np

        matrix = np.zeros((self.fine.n_classes, self.coarse.n_classes))
        matrix[np.arange(self.fine.n_classes), self.positions] = 1.0
        return matrix

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """(..., n_fine) to (..., n_coarse), of the same dtype; rows keep their sum. Summed in float64, and at
        most 1, which rounding to float32 can exceed by a hair.
        """
        import numpy as np

        values = np.asarray(probabilities)
        mapped: np.ndarray = np.minimum(values.astype(np.float64) @ self.matrix, 1.0).astype(values.dtype)
        return mapped

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Class indexes of the finer list as those of the coarser: int64, same shape; -1 stays."""
        import numpy as np

        values = np.asarray(labels, dtype=np.int64)
        return np.where(values < 0, -1, np.asarray(self.positions, dtype=np.int64)[values])

    def counts_as(self) -> dict[str, tuple[str, ...]]:
        """Code of the coarser list -> codes that count as it; empty where none does."""
        return {
            code: tuple(name for name, at in zip(self.fine.codes, self.positions, strict=True) if at == index)
            for index, code in enumerate(self.coarse.codes)
        }

    def sentences(self) -> list[str]:
        """What was mapped, for the user: one sentence per class of the coarser list."""
        said = []
        for code, names in self.counts_as().items():
            if names and names != (code,):
                said.append(f"{' + '.join(names)} of {self.fine.name} count as {code} of {self.coarse.name}")
            elif not names:
                said.append(f"no class of {self.fine.name} counts as {code} of {self.coarse.name}")
        return said


def mapping_between(fine: ClassList, coarse: ClassList) -> ClassMapping:
    """How a finer list maps onto a coarser one.

    A class counts as the class of the coarser list that has its code among its names; otherwise as the class
    there that the first of its parents names, or its title.

    Raises
    ------
    DataError : some class has no place in the coarser list, or that list has more classes.
    """
    placed = [_place(entry, coarse) for entry in fine.entries]
    without = [code for code, place in zip(fine.codes, placed, strict=True) if place is None]
    if without or coarse.n_classes > fine.n_classes:
        what = (
            f"these classes have no place there: {name_items(without)}"
            if without
            else f"{fine.n_classes} classes cannot be told apart into {coarse.n_classes}"
        )
        raise DataError(
            f"classes of {fine.described} cannot be mapped onto {coarse.described}: {what}",
            "Only a finer list maps onto a coarser one. `parents` states what a class is a kind of.",
        )
    return ClassMapping(fine, coarse, tuple(coarse.index[place] for place in placed if place is not None))


def _place(entry: DiagnosticClass, coarse: ClassList) -> str | None:
    for name in (entry.code, *entry.parents, entry.title):
        place = coarse.class_named(name)
        if place is not None:
            return place
    return None
