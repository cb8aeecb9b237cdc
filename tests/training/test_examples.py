"""The programs in examples/ that judge trainings, on a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download import stage as download
from skinlesion_cli.stages.train import stage as train

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import ablation
import sharpness_check

SMALL = ["batch_size=16", "input_size_px=32", "progressive_sizes_px=[]", "harmonise_px=40"]


@pytest.fixture(scope="module")
def workspace(generated, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("examples") / "workspace"
    download.run(
        download.DownloadSettings(workspace=root, source=generated, split="grouped"), SilentReporter()
    )
    return root


def test_sharpness_table(workspace, monkeypatch, capsys):
    recipe = load_recipe("light", "tiny", settings=[*SMALL, "epochs=1"], environment={})
    config = train.TrainSettings(
        workspace=workspace, arch="tiny", recipe=recipe, weights="none", device="cpu", workers=0
    )
    result = train.run(config, SilentReporter())
    monkeypatch.setattr(sys, "argv", ["sharpness_check", "--workspace", str(workspace), "--arch", "tiny"])
    sharpness_check.main()
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if line.startswith("| unchanged | 0"))
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert float(cells[1]) == pytest.approx(result.figures["val_bacc"], abs=5e-4)
    assert cells[3:6] == ["+0.000", "+0.000 to +0.000", "100.0 %"]
    assert sum(line.startswith("| blurred") for line in lines) == 2


@pytest.mark.parametrize(
    ("name", "shape", "softer"),
    [
        ("all resized to 150 x 150", (150, 150), None),
        ("shrunk to 3/4", (90, 120), None),
        ("enlarged to 3/2 (bicubic)", (180, 240), None),
        ("down to 100 px and back", (120, 160), True),
        ("blurred, sigma 1 px", (120, 160), True),
        ("sharpened (unsharp mask)", (120, 160), False),
        ("JPEG quality 70", (120, 160), None),
    ],
)
def test_changes_of_sharpness(name, shape, softer):
    pixels = np.random.default_rng(0).integers(80, 170, (120, 160, 3), dtype=np.uint8)
    changed = np.asarray(sharpness_check.CHANGES[name](Image.fromarray(pixels)))
    assert changed.shape == (*shape, 3)
    assert not np.array_equal(changed, pixels)

    def edges(image):
        return np.abs(np.diff(image.astype(float), axis=1)).mean()

    if softer is not None:
        assert bool(edges(changed) < 0.8 * edges(pixels)) is softer


def test_ablation_runs_the_command_goes_on_and_collects(workspace, tmp_path, monkeypatch, capsys):
    commands = []

    def fake(arguments, **settings):
        """Instead of the command: the stage, in this process."""
        commands.append(arguments)
        given = dict(zip(arguments[4::2], arguments[5::2], strict=False))
        assert given["--recipe"] == "default"
        recipe = load_recipe(
            "light", "tiny", settings=[*SMALL, "epochs=1", "cache_size_px=32"], environment={}
        )
        dry = "--dry-run" in arguments
        config = train.TrainSettings(
            workspace=Path(given["--workspace"]),
            arch="tiny",
            recipe=recipe,
            weights="none",
            seed=int(given.get("--seed", 1)),
            device="cpu",
            workers=0,
            dry_run=dry,
        )
        result = train.run(config, SilentReporter())
        done = type("Done", (), {})()
        done.stdout = json.dumps({"figures": dict(result.figures)})
        return done

    monkeypatch.setattr(ablation.subprocess, "run", fake)
    arguments = ["ablation", "--workspace", str(workspace), "--folder", str(tmp_path), "--arch", "tiny"]
    arguments += ["--minutes", "1", "--only", "default", "equal-classes", "--max-epochs", "3"]
    monkeypatch.setattr(sys, "argv", arguments)
    ablation.main()
    out = capsys.readouterr().out
    assert len([c for c in commands if "--dry-run" not in c]) == 4
    assert json.loads((tmp_path / "tiny-epochs.json").read_text()) == {
        "default in 1 min": 3,
        "equal-classes in 1 min": 3,
    }
    settings = next(c for c in commands if "tiny-equal-classes-seed2" in " ".join(c))
    assert "sampler_power=1.0" in settings
    assert settings[settings.index("--epochs") + 1] == "3"
    # The fake ignored the settings: both variants are the same network, so the difference is nothing at all.
    row = next(line for line in out.splitlines() if line.startswith("| equal-classes"))
    assert "| +0.000 | +0.000 to +0.000 |" in row
    monkeypatch.setattr(sys, "argv", [*arguments, "--collect"])
    n = len(commands)
    ablation.main()
    assert len(commands) == n
    assert row in capsys.readouterr().out
