"""Images that were replaced between a run that was interrupted and the one that resumes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from skinlesion_cli.artifacts import prediction_file
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.errors import name_items
from skinlesion_cli.stages.predict.settings import PredictSettings


@dataclass
class ChangedInputs:
    """`ids` of images that were written after the last row of an unfinished run, which is of `time_ns` since
    the epoch; None: no run is resumed.
    """

    time_ns: int | None
    ids: list[str] = field(default_factory=list)

    @classmethod
    def last_row_of(cls, settings: PredictSettings) -> Self:
        """Since the last row of the run that is resumed; to be asked before its table is opened."""
        partial = prediction_file.partial_path(settings.output)
        return cls(partial.stat().st_mtime_ns if settings.resume and partial.is_file() else None)

    def check(self, source: ImageInput) -> None:
        """Remember the image of a finished row if it was written after it; the row is of another then."""
        try:
            is_later = self.time_ns is not None and source.path.stat().st_mtime_ns > self.time_ns
        except (OSError, ValueError):  # it was removed, or never there
            return
        if is_later:
            self.ids.append(source.id)

    @property
    def warning(self) -> str:
        """Which those are, and what to do."""
        return (
            f"changed after they were predicted, so their rows are of what they showed before: "
            f"{name_items(self.ids)}. Start again with --overwrite to predict them as they are now"
        )
