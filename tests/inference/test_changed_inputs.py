"""A run that is resumed says which of the images that it does not predict again were written since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.predict import stage
from skinlesion_cli.stages.predict.settings import PredictSettings
from skinlesion_cli.stages.predict.worker import Worker
from tests.support import tiny_models


class Killed(BaseException):
    """What ends the first run."""


def test_images_that_were_replaced_meanwhile_are_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny_models.make_images(tmp_path / "in", 6)
    left = iter(range(2))

    def predict_two(self: Worker, chunk: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return predict(self, chunk)

    predict = Worker.predict

    def settings(**more: bool) -> PredictSettings:
        return PredictSettings(
            workspace=tiny_model,
            inputs=(str(images),),
            output=tmp_path / "out.csv",
            batch=1,
            workers=1,
            **more,
        )

    with monkeypatch.context() as context:
        context.setattr(Worker, "predict", predict_two)
        with pytest.raises(Killed):
            stage.run(settings(), SilentReporter())
    files = sorted(images.rglob("*.jpg"))
    written_ns = (tmp_path / "out.csv.partial").stat().st_mtime_ns
    # The first was predicted, and so was the second; the last was not.
    for file, time_ns in (
        (files[0], written_ns + 1_000_000),
        (files[1], written_ns - 1),
        (files[5], written_ns * 2),
    ):
        os.utime(file, ns=(time_ns, time_ns))
    resumed = stage.run(settings(resume=True), SilentReporter())
    (warning,) = [each for each in resumed.warnings if "--overwrite" in each]
    assert "a/image 000.jpg" in warning
    assert "image 002.jpg" not in warning
    assert "image 005.jpg" not in warning
    assert stage.run(settings(), SilentReporter()).warnings[1:] == []
