"""The whole chain at the command line, on generated images with the tiny network."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.limits import HANG_S
from tests.support.tiny_training import TINY

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def workspace(trained_folder, tmp_path_factory) -> Path:
    """A folder with a finished workspace, made by the commands themselves."""
    return Path(shutil.copytree(trained_folder, tmp_path_factory.mktemp("chain") / "folder"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_stage_leaves_its_artifacts(workspace):
    found = {str(p.relative_to(workspace / "skinlesion-workspace")) for p in workspace.rglob("*.json")}
    assert {
        "dataset/manifest.json",
        "dataset/split.json",
        "models/tiny/checkpoint.json",
        "models/tiny/predictions-val.json",
        "models/tiny/predictions-test.json",
        "ensemble/ensemble.json",
        "ensemble/predictions-val.json",
        "calibration/calibration.json",
    } <= found


@pytest.mark.command_line
def test_no_artifact_names_a_path_of_this_machine(workspace):
    for path in (workspace / "skinlesion-workspace").rglob("*.json"):
        assert str(workspace) not in path.read_text(), path


def test_info_tells_what_is_done(skinlesion, workspace):
    done = skinlesion("info", "--json", cwd=workspace)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == "skinlesion.result/1"
    assert told["figures"]["dataset"]["images"] == 105
    assert told["figures"]["dataset"]["lesions"] == 70
    assert list(told["figures"]["networks"]) == ["tiny"]
    assert told["next"] == "skinlesion evaluate --report"


def test_info_in_an_empty_folder_says_where_to_begin(skinlesion, tmp_path):
    done = skinlesion("info", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["next"] == "skinlesion download --from DIR"


def test_predict_with_cam(skinlesion, workspace, generated, tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    source = generated / "ISIC2018_Task3_Training_Input"
    for index, name in enumerate(sorted(os.listdir(source))[:3]):
        (images / ("sub" if index == 2 else ".") / f"{index}.jpg").write_bytes((source / name).read_bytes())
    (images / "broken.jpg").write_text("<html>no image</html>")
    arguments = ("predict", images, "--cam", "--output", tmp_path / "out.csv")
    done = skinlesion(*arguments, "--workspace", workspace / "skinlesion-workspace")
    assert done.returncode == 3, done.stderr
    found = rows(tmp_path / "out.csv")
    assert [row["id"] for row in found] == ["0.jpg", "1.jpg", "broken.jpg", "sub/2.jpg"]
    assert [row["status"] for row in found] == ["ok", "ok", "error", "ok"]
    assert "not_an_image" in found[2]["error"]
    assert found[2]["decision"] == found[2]["p_MEL"] == ""
    names = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    for row in (found[0], found[1], found[3]):
        probabilities = [float(row[f"p_{name}"]) for name in names]
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)
        assert row["argmax"] == names[int(np.argmax(probabilities))]
        malignant = sum(float(row[f"p_{name}"]) for name in ("MEL", "BCC", "AKIEC"))
        assert float(row["malignant_probability"]) == pytest.approx(malignant, abs=1e-6)
    overlays = sorted(p for p in tmp_path.rglob("*.png"))
    assert len(overlays) == 3
    assert all(min(Image.open(path).size) >= 72 for path in overlays)


def test_python_interface_agrees_with_the_command(skinlesion, workspace, generated, tmp_path):
    from skinlesion_cli import Classifier

    image = sorted((generated / "ISIC2018_Task3_Training_Input").iterdir())[0]
    done = skinlesion("predict", image, "-o", tmp_path / "o.csv", "-w", workspace / "skinlesion-workspace")
    assert done.returncode == 0, done.stderr
    row = rows(tmp_path / "o.csv")[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    classifier = Classifier.load(workspace / "skinlesion-workspace", device="cpu")
    first, second = classifier.predict([str(image), broken])
    assert first.decision == row["decision"]
    assert first.probabilities is not None
    for name, probability in first.probabilities.items():
        assert probability == pytest.approx(float(row[f"p_{name}"]), abs=1e-5)
    assert second.decision is None
    assert second.error == "empty: the file is empty"


def test_stored_validation_predictions_are_what_predict_says(workspace):
    """The pixels of the training cache and those of `predict` must be the same, or thresholds are void."""
    from skinlesion_cli import Classifier
    from skinlesion_cli.artifacts.predictions import Predictions
    from skinlesion_cli.artifacts.workspace import Workspace

    space = Workspace(workspace / "skinlesion-workspace")
    held = Predictions.load(space.ensemble_predictions("val"))
    classifier = Classifier.load(space.root, device="cpu")
    paths = [space.images / f"{identity}.jpg" for identity in held.table["id"][:8]]
    expected = classifier.bundle.calibration.decide(held.probabilities[:8]).probabilities
    for row, prediction in enumerate(classifier.predict(paths)):
        assert prediction.probabilities is not None, prediction.error
        np.testing.assert_allclose(list(prediction.probabilities.values()), expected[row], atol=1e-5)


def test_half_finished_workspace_says_what_to_run(skinlesion, workspace, tmp_path):
    import shutil

    copy = tmp_path / "w"
    shutil.copytree(workspace / "skinlesion-workspace", copy)
    (copy / "calibration" / "calibration.json").unlink()
    done = skinlesion("predict", ROOT / "examples" / "images", "-w", copy, "-o", tmp_path / "o.csv")
    assert done.returncode == 4
    assert "skinlesion calibrate" in done.stderr
    assert not (tmp_path / "o.csv").exists()


def test_network_trained_again_is_refused_by_the_old_ensemble(skinlesion, workspace, tmp_path):
    import shutil

    copy = tmp_path / "w"
    shutil.copytree(workspace / "skinlesion-workspace", copy)
    done = skinlesion("train", *TINY, "--epochs", 1, "--fresh", "-w", copy)
    assert done.returncode == 0, done.stderr
    done = skinlesion("predict", ROOT / "examples" / "images", "-w", copy, "-o", tmp_path / "o.csv")
    assert done.returncode == 4
    assert "skinlesion ensemble" in done.stderr


def test_other_settings_do_not_overwrite_a_trained_network(skinlesion, workspace):
    done = skinlesion("train", *TINY, "--epochs", 3, cwd=workspace)
    assert done.returncode == 4
    assert "--fresh" in done.stderr


def test_the_same_training_again_does_nothing(skinlesion, workspace):
    checkpoint = workspace / "skinlesion-workspace" / "models" / "tiny" / "checkpoint.json"
    before = checkpoint.stat().st_mtime_ns
    done = skinlesion("train", *TINY, "--epochs", 2, cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert checkpoint.stat().st_mtime_ns == before


def test_no_weights_to_be_had_stops(skinlesion, workspace, tmp_path):
    done = skinlesion("train", "--arch", "tiny", cwd=workspace)
    assert done.returncode in (1, 4)
    assert "--weights none" in done.stderr or "--fresh" in done.stderr


@pytest.mark.command_line
@pytest.mark.parametrize("moment_s", [3.0, 4.5])
def test_killed_training_leaves_no_half_artifact(skinlesion, workspace, generated, tmp_path, moment_s):
    """kill -9 at some moment: whatever has a final name is whole, and the same command finishes."""
    done = skinlesion("download", "--from", generated, "--split", "grouped", "-w", tmp_path / "w")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "skinlesion_cli", "train", *TINY, "--epochs", "40"]
    process = subprocess.Popen(
        [*command, "-w", str(tmp_path / "w")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(moment_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    told = skinlesion("info", "--json", "-w", tmp_path / "w")
    assert told.returncode == 0, told.stdout + told.stderr


def test_help_is_light(skinlesion):
    done = skinlesion("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    loaded = {
        line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert "skinlesion_cli.cli.app" in loaded
    assert not loaded & {"torch", "timm", "pandas", "numpy", "PIL", "albumentations", "pydantic"}


def test_version(skinlesion):
    from skinlesion_cli import __version__

    assert skinlesion("--version").stdout == f"skinlesion {__version__}\n"


def test_nothing_connects_at_import():
    """Every module of the package, and with it every library, is imported with sockets forbidden."""
    program = (
        "import pkgutil, importlib, socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('tried to connect: %r' % (a[1:],))\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "import skinlesion_cli\n"
        "for m in pkgutil.walk_packages(skinlesion_cli.__path__, 'skinlesion_cli.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "import albumentations, timm, pytorch_grad_cam\n"
        "print('imported')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=HANG_S
    )
    assert done.stdout.strip() == "imported", done.stdout + done.stderr


def test_every_command_has_an_example_and_help_for_every_option():
    import typer.main

    from skinlesion_cli.cli.app import app

    group = typer.main.get_command(app)
    assert {"download", "train", "ensemble", "calibrate", "predict", "info"} <= set(group.commands)
    for name, command in group.commands.items():
        assert f"skinlesion {name}" in command.help.partition("Examples")[2], name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_every_export_is_a_runtime():
    from skinlesion_cli.artifacts import exports
    from skinlesion_cli.inference.runtimes.registry import RUNTIMES

    assert set(exports.FORMATS) <= set(RUNTIMES)
