"""Progress and its speed, on a terminal and in a log, also where an earlier run has done a part."""

from __future__ import annotations

import pytest
from rich.progress import Progress

from skinlesion_cli.cli import timing
from skinlesion_cli.cli.render import _LiveTask


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])
    return now


def test_a_log_tells_the_speed_of_this_run_alone(clock):
    said = []
    task = timing.LoggedTask("epoch 2/12", 250, "steps", said.append)
    task.skip(190)
    clock[0] += 61
    task.advance(30.5)
    # 30.5 steps in 61 s; 250 - 220.5 are left.
    assert said == ["epoch 2/12: 220.5 of 250 steps (0.5/s, 59 s left)"]


def test_a_live_bar_tells_the_speed_of_this_run_alone():
    now = [0.0]
    with Progress(get_time=lambda: now[0], disable=True) as progress:
        identity = progress.add_task("predicting", total=1000, speed="")
        task = _LiveTask(progress, identity, "images")
        for _ in range(3):  # much, in no time
            now[0] += 0.01
            task.skip(200)
        for _ in range(5):
            now[0] += 1.0
            task.advance(4)
        shown = progress.tasks[0]
        assert shown.completed == 620
        assert shown.fields["speed"] == "4.0 images/s"
        assert shown.time_remaining == 95  # 380 at 4 a second


def test_the_row_of_an_epoch_that_was_resumed_counts_the_steps_of_this_run(tmp_path):
    from types import SimpleNamespace

    from skinlesion_cli.models.training.counters import EpochTime
    from skinlesion_cli.stages.train.watching import Watcher

    recipe = SimpleNamespace(size_px_at=lambda share: 64, epochs=4, batch_size=32)
    job = SimpleNamespace(
        settings=SimpleNamespace(recipe=recipe), classes=SimpleNamespace(malignant_codes=())
    )
    row = {"learning_rate": 0.1, "train_loss": 1.0, "val_loss": 1.0, "val_bacc": 0.5}
    time = EpochTime(n_steps=20, total_s=12.0, training_s=10.0, waiting_s=1.0)
    shown = Watcher(job, 100)._table_row(row, 2, time)
    assert shown["images/s"] == 64.0  # 20 steps of 32 in 10 s
    assert shown["waiting"] == "10 %"
    # Two whole epochs of 50 s of training and 2 s of evaluation.
    assert shown["left"] == "2 min"  # 104 s
