"""Options that take one of a few names: refused with the list, and completed in the shell without torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skinlesion_cli.cli import names
from tests.cli.conftest import COMMANDS, Run
from tests.conftest import ROOT
from tests.support.limits import HANG_S

DEVICES = "auto, cpu, cuda, mps"
RUNTIMES = "auto, torch, onnx, onnx-int8, openvino-bf16"
STYLES = "overlay, contour, side-by-side"
# Command, option, and the names that a refusal lists.
CHOICES = [
    ("average", "--device", DEVICES),
    ("bench", "--device", DEVICES),
    ("bench", "--runtime", RUNTIMES),
    ("calibrate", "--adaptive", "decision, triage"),
    ("calibrate", "--policy", "guaranteed, published, cost, none"),
    ("calibrate", "--probabilities", "vector, temperature, dirichlet, beta, isotonic, none"),
    ("download", "--format", "auto, isic2018, ham10000, isic2019, isic-archive, folders, csv, reviewed"),
    ("download", "--image-types", "dermoscopic, all"),
    ("download", "--show-classes", "isic2018, isic2019, melanoma, malignancy, diagnosis_1"),
    ("download", "--split", "official, grouped, kfold, published"),
    ("ensemble", "--method", "bacc, equal, stacked"),
    ("ensemble", "--tta", "none, flips, d4, zoom, crops, published"),
    ("evaluate", "--decision", "calibrated, argmax"),
    ("evaluate", "--part", "test, val"),
    ("explain", "--cam-style", STYLES),
    ("explain", "--device", DEVICES),
    ("explain", "--method", "fused, gradcam, gradcam++, xgradcam, hirescam, layercam, gradcamelementwise"),
    ("explain", "--raw", "png16, npz"),
    ("explain", "--runtime", RUNTIMES),
    ("export", "--format", "onnx, onnx-int8, openvino-bf16, openvino, coreml, litert, executorch"),
    ("predict", "--backend", "threads, local, dask, ray"),
    ("predict", "--cam-style", STYLES),
    ("predict", "--device", DEVICES),
    ("predict", "--format", "csv, jsonl, parquet"),
    ("predict", "--runtime", RUNTIMES),
    ("predict", "--tta", "adaptive, none, flips, d4, zoom, crops, published"),
    ("select", "--by", "mixed, margin, entropy, disagreement, diversity"),
    ("select", "--device", DEVICES),
    ("select", "--runtime", RUNTIMES),
    ("train", "--arch", "resnet50, densenet121, efficientnet_b3, efficientnet_lite0"),
    ("train", "--device", DEVICES),
    ("train", "--log", "mlflow, wandb"),
    ("train", "--tune", "full, last, lora"),
]
# Options that take names and other things, and what is wrong with a name that is neither.
OPEN = [
    (("download", "--parts", "training,tests"), "Known: training, validation, test"),
    (("train", "--arch", "tiny", "--metadata", "age,weight"), "'age', 'sex' or 'site'"),
    (
        ("train", "--arch", "tiny", "--recipe", "quick"),
        "Recipes: default, fast, light, published",
    ),
    (("train", "--arch", "tiny", "--set", "epoch=3"), "did you mean 'epochs'"),
    (("predict", ".", "--shard", "4/3"), "Example: --shard 3/16"),
]


def arguments_of(name: str) -> tuple[str, ...]:
    return ("x.jpg",) if name in ("predict", "explain", "select") else ()


def refusal(done: Any) -> str:
    """The message in the envelope of a command that was refused for wrong usage."""
    assert done.exit_code == 2, done.output
    return str(json.loads(done.stdout)["message"])


@pytest.mark.parametrize(("name", "option", "known"), CHOICES)
def test_an_unknown_name_is_refused_with_the_known_ones(
    name: str, option: str, known: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(name, *arguments_of(name), option, "qqq", "--json")
    message = refusal(done)
    assert f"'{option}'" in message
    assert "'qqq'" in message
    assert message.endswith(known) or f"{known}, " in message
    assert "qqq" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_option_with_choices_is_tried() -> None:
    checked = {
        (name, parameter.opts[0])
        for name, command in COMMANDS.items()
        for parameter in command.params
        if parameter.callback is not None
    }
    assert checked == {(name, option) for name, option, _ in CHOICES}


@pytest.mark.parametrize(("arguments", "known"), OPEN, ids=[" ".join(a) for a, _ in OPEN])
def test_an_unknown_value_is_refused_with_what_is_known(
    arguments: tuple[str, ...], known: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert known in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_name_gets_the_nearest_one(run: Run) -> None:
    assert "did you mean 'MEL'?" in refusal(run("explain", "x.jpg", "--class", "mel", "--json"))
    assert "did you mean 'densenet121'?" in refusal(run("train", "--arch", "densenet", "--json"))


def registries() -> set[str]:
    """Every registry that an option takes its names from."""
    sources = (ROOT / "skinlesion_cli" / "cli").glob("*.py")
    return {name for file in sources for name in re.findall(r'known="([\w.]+)"', file.read_text("utf-8"))}


def test_names_read_from_the_source_are_those_of_the_registry() -> None:
    found = registries()
    assert {"inference.runtimes.registry.RUNTIMES", "decisions.policies.registry.POLICIES"} <= found
    assert {name: names.names_of(name) for name in found} == {
        name: names.imported_names(name) for name in found
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('N = {"a": 1, "b": f()}', ("a", "b")),
        ('A, B = "a", "b"\nN: tuple[str, ...] = (A, B, "c")', ("a", "b", "c")),
        ('M = {"a": 1}\nN = tuple(M)', ("a",)),
        ('M = ("a",)\nN = (*M, "b")', ("a", "b")),
        ('N = {name: 1 for name in ("x", "y")}', None),
        ('M = {"x": 1}\nN = {**M, "y": 2}', None),
        ('def N():\n    return ["x", "y"]', None),
    ],
)
def test_names_that_are_written_out_are_read_and_others_imported(
    source: str, expected: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registry.py").write_text(source)
    monkeypatch.setattr(names, "_PACKAGE", tmp_path)
    monkeypatch.setattr(names, "imported_names", lambda registry: (f"imported {registry}",))
    assert names.names_of.__wrapped__("registry.N") == (expected or ("imported registry.N",))


@pytest.mark.parametrize(("name", "option", "known"), CHOICES)
def test_help_lists_every_name(name: str, option: str, known: str) -> None:
    context = COMMANDS[name].make_context(name, [], resilient_parsing=True)
    (parameter,) = (p for p in COMMANDS[name].get_params(context) if option in p.opts)
    assert "{" not in parameter.help
    if option not in ("--arch", "--priority"):  # which say what they take
        assert set(known.split(", ")) <= set(re.split(r"[ ,:.]+", parameter.help))


@pytest.mark.parametrize("layout", ["csv", "reviewed", "isic-archive", "isic2019", "ham10000", "folders"])
def test_a_source_of_another_layout_is_refused_by_name(layout: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("no dataset")
    done = run("download", "--from", tmp_path / "in", "--format", layout, "-w", tmp_path / "ws")
    assert done.exit_code == 1, done.output
    assert "should not happen" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "ws" / "dataset" / "manifest.json").exists()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two single networks, and one architecture trained in two folds."""
    for name in ("resnet50", "tiny", "densenet121-fold0", "densenet121-fold1"):
        (tmp_path / "ws" / "models" / name).mkdir(parents=True)
        (tmp_path / "ws" / "models" / name / "checkpoint.json").write_text("{}")
    (tmp_path / "ws" / "models" / "densenet121").mkdir()
    (tmp_path / "ws" / "models" / "densenet121" / "predictions-oof.json").write_text("{}")
    return tmp_path / "ws"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `skinlesion` command as an installation makes it."""
    path = tmp_path_factory.mktemp("bin") / "skinlesion"
    path.write_text(f"#!{sys.executable}\nfrom skinlesion_cli.cli.app import main\nmain()\n")
    path.chmod(0o755)
    return path


def complete(program: Path, line: str, cwd: Path) -> tuple[list[str], set[str]]:
    """What bash offers for the last word of a line, and the modules that were loaded for it."""
    asked = {"_SKINLESION_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [program],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"} | asked,
    )
    lines = done.stderr.splitlines()
    loaded = {text.split("|")[-1].strip() for text in lines if text.startswith("import time:")}
    assert "skinlesion_cli.cli.app" in loaded, done.stderr
    return done.stdout.split(), loaded


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (
            "skinlesion train --arch efficientnet_l",
            "efficientnet_lite0 efficientnet_lite1 efficientnet_lite2",
        ),
        (
            "skinlesion train --recipe ",
            "default fast light published",
        ),
        (
            "skinlesion train --arch timm:convnext_atto.",
            "timm:convnext_atto.d2_in1k",
        ),
        ("skinlesion train --arch timm-convnext_atto.", "timm-convnext_atto.d2_in1k"),
        ("skinlesion calibrate --policy ", "guaranteed published cost none"),
        ("skinlesion predict --runtime o", "onnx onnx-int8 openvino-bf16"),
        ("skinlesion predict --tta ", "adaptive none flips d4 zoom crops published"),
        ("skinlesion explain --device c", "cpu cuda"),
        ("skinlesion ensemble -w ws ", "densenet121 resnet50 tiny"),
        ("skinlesion export -w ws --member d", "densenet121-fold0 densenet121-fold1"),
        ("skinlesion pre", "predict"),
    ],
)
def test_names_are_completed_without_torch(line: str, offered: str, program: Path, workspace: Path) -> None:
    found, loaded = complete(program, line, workspace.parent)
    assert found == offered.split()
    assert not loaded & {"torch", "timm", "pandas", "scipy", "sklearn", "matplotlib"}


def test_install_completion_works_in_bash(program: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
    }

    def bash(script: str) -> subprocess.CompletedProcess[str]:
        # The shell is found by looking at the parent process, so there has to be one.
        arguments = ["bash", "--norc", "-c", script]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=HANG_S)

    done = bash("skinlesion --install-completion; exit $?")
    assert done.returncode == 0, done.stderr
    assert "bash completion installed" in done.stdout
    script = next((tmp_path / ".bash_completions").iterdir())
    assert str(script) in (tmp_path / ".bashrc").read_text()
    words = "COMP_WORDS=(skinlesion train --arch dens); COMP_CWORD=3"
    function = "$(complete -p skinlesion | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    done = bash(f'source {script}; {words}; {function} skinlesion; echo "${{COMPREPLY[@]}}"')
    assert done.stdout == "densenet121\n", done.stderr
