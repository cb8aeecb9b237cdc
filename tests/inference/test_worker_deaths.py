"""What a worker that dies held is predicted again, however often that happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.stages.predict import backends
from skinlesion_cli.stages.predict.worker import Plan


class TerminatedWorkerError(Exception):
    """As joblib calls it; it is known by its name."""


def test_no_image_is_lost_when_workers_die_while_others_are_predicted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # How many messages each burst takes before it dies: the second dies with four of six not yet sent again.
    deaths = [6, 2]

    def answers(_name: str, _n_jobs: int, tasks: Iterator[Any]) -> Iterator[list[list[int]]]:
        dies_after = deaths.pop(0) if deaths else None
        for number, (_, (_plan, message), _) in enumerate(tasks, start=1):
            if dies_after is None:
                yield [[number for number, _ in chunk] for chunk in message]
            elif number == dies_after:
                raise TerminatedWorkerError("killed")

    monkeypatch.setattr(backends, "_answers", answers)
    chunks = [[(number, ImageInput(f"{number}.png", Path(f"{number}.png")))] for number in range(1, 31)]
    notes: list[str] = []
    rows = backends.by_processes(
        Plan(Path(), "0" * 64, "onnx"), chunks, backend="local", workers=2, address=None, note=notes.append
    )
    assert [number for predictions in rows for number in predictions] == list(range(1, 31))
    assert len(notes) == 2
