"""Models that somebody handed over: whatever stands in them, a command succeeds or ends with exit code 4.

Nothing outside the folder is opened, nothing blocks, and no count is believed before it was checked.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from skinlesion_cli.artifacts import reading
from skinlesion_cli.artifacts.base import StoredArtifact
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.evaluation import Evaluation
from skinlesion_cli.artifacts.exports import Export
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.near_duplicates import Duplicates
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.training_state import TrainingState
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import canonical_json
from skinlesion_cli.errors import ArtifactError
from tests.support.command_line import assert_refused, run

pytestmark = pytest.mark.command_line

CHECKPOINT = "models/tiny-fold0/checkpoint.json"
ENSEMBLE = "ensemble/ensemble.json"
CALIBRATION = "calibration/calibration.json"
GATE = "calibration/gate.json"
ARTIFACTS: dict[str, type[StoredArtifact]] = {
    CHECKPOINT: Checkpoint,
    ENSEMBLE: Ensemble,
    CALIBRATION: Calibration,
    GATE: StoredQualityGate,
}
DELETED = object()
ODD_VALUES: tuple[object, ...] = (
    *("text", "../../../elsewhere", -1, 0, 25_000_000, 1.7e308, True, None, [], {}, [[]], DELETED),
)
# What is stored for people to read; no prediction depends on it.
FIGURES = {
    "figures",
    "probability_figures",
    "triage_figures",
    "support",
    "recipe",
    "promises",
    "targets",
    "inputs",
}
# A list longer than this is changed at its two ends only.
LONG = 4


@pytest.fixture(scope="module")
def model(old_version: Path) -> Path:
    """A packed model with folds, an adaptive calibration and a quality gate; not to be changed."""
    return old_version / "packed"


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def image(images: Path) -> Path:
    return sorted(images.rglob("*.jpg"))[0]


def read(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / name).read_text("utf-8"))
    return content


def write(root: Path, name: str, content: dict[str, Any]) -> str:
    """Write an envelope with the hash that belongs to its content."""
    content = {key: value for key, value in content.items() if key != "sha256"}
    digest = sha256_bytes(canonical_json(content))
    (root / name).write_text(json.dumps(content | {"sha256": digest}))
    return digest


def signed_recipe(name: str, content: dict[str, Any]) -> None:
    """State the hash of a changed recipe anew."""
    if name == CHECKPOINT and isinstance(content.get("body"), dict):
        content["config_sha256"] = sha256_bytes(canonical_json(content["body"].get("recipe")))


def signed(root: Path, name: str, content: dict[str, Any]) -> None:
    """Put one changed artifact into a model and sign those that name it anew, as a careful forger would."""
    signed_recipe(name, content)
    digest = write(root, name, content)
    if name == CHECKPOINT:
        ensemble = read(root, ENSEMBLE)
        ensemble["body"]["members"][0]["checkpoint_sha256"] = digest
        digest = write(root, ENSEMBLE, ensemble)
    if name in (CHECKPOINT, ENSEMBLE):
        calibration = read(root, CALIBRATION)
        calibration["inputs"]["ensemble"] = digest
        write(root, CALIBRATION, calibration)


def leaves(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Places of all values in a JSON document, inner objects and lists included."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for index in range(len(value)) if len(value) <= LONG else (0, len(value) - 1):
            yield from leaves(value[index], (*place, index))


def changed(content: dict[str, Any], place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The document with another value at one place; everything beside it is shared, not copied."""
    document = copy.copy(content)
    inner: Any = document
    for step in place[:-1]:
        inner[step] = copy.copy(inner[step])
        inner = inner[step]
    if value is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return document


def mutations(content: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], object, dict[str, Any]]]:
    parts = {key: content[key] for key in ("body", "preprocessing", "payloads", "seed", "inputs")}
    for place in leaves(parts):
        # The rule stood a second time beside what was measured of it, and nothing reads that. Of the quality
        # gate's six tables of quantiles, one is enough.
        if ("quantiles" in place[:2] and place[2:3] not in ((), ("hair",))) or place[1:3] == (
            "stopping",
            "stopping",
        ):
            continue
        for value in ODD_VALUES:
            mutated = changed(content, place, value)
            if mutated != content:
                yield place, value, mutated


@pytest.mark.slow
@pytest.mark.parametrize("name", ARTIFACTS)
def test_any_odd_value_is_refused_or_harmless(
    name: str, own_model: Path, image: Path, tmp_path: Path
) -> None:
    content, before = read(own_model, name), {file: (own_model / file).read_bytes() for file in ARTIFACTS}
    accepted: list[tuple[tuple[str | int, ...], object, dict[str, Any]]] = []
    refused: dict[tuple[str | int, ...], str] = {}
    for place, value, mutated in mutations(content):
        signed_recipe(name, mutated)
        write(own_model, name, mutated)
        try:
            ARTIFACTS[name].load(own_model / name)
        except ArtifactError as error:
            refused[place] = error.message
        else:
            accepted.append((place, value, mutated))
    # Every field is refused for some value, except for what nothing depends on.
    assert len(refused) > 15
    assert all(Path(name).name in message or "checkpoint." in message for message in refused.values())
    # What was accepted is predicted with: one value of each field, and of figures, which nothing reads, some.
    first = {place: (value, mutated) for place, value, mutated in reversed(accepted)}
    figures = [place for place in first if FIGURES & set(place)]
    others = [place for place in first if place not in figures]
    for place in [*others[:: max(1, len(others) // 30)], *figures[::20]]:
        value, mutated = first[place]
        signed(own_model, name, mutated)
        done = run("predict", image, "-o", tmp_path / "out.csv", "--overwrite", "--model", own_model)
        assert "should not happen" not in done.output, (place, value, done.output)
        assert done.exit_code in (0, 4), (place, value, done.output)
        for file, original in before.items():
            (own_model / file).write_bytes(original)


COUNTS = {
    "views of the stopping rule": (CALIBRATION, ("body", "stopping", "stopping_rule", "n_views"), "n_views"),
    "image size": (CHECKPOINT, ("preprocessing", "input_size_px"), "input_size_px"),
    "metadata columns": (CHECKPOINT, ("body", "figures", "metadata_columns"), "metadata_columns"),
    "fold": (CHECKPOINT, ("body", "fold"), "fold"),
}


@pytest.mark.parametrize(("name", "place", "word"), COUNTS.values(), ids=COUNTS)
def test_absurd_counts_are_refused_by_name(
    name: str, place: tuple[str, ...], word: str, own_model: Path, image: Path, tmp_path: Path
) -> None:
    signed(own_model, name, changed(read(own_model, name), place, 25_000_000))
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, Path(name).name, word, "25000000")


ODD_MODELS = {
    "a negative weight": (ENSEMBLE, ("body", "members", 0, "weight"), -0.5, "members.0.weight"),
    "weights of another sum": (ENSEMBLE, ("body", "members", 0, "weight"), 0.75, "sum to 1.25"),
    "text for a number": (ENSEMBLE, ("body", "members", 0, "weight"), "0.5", "members.0.weight"),
    "no views": (CALIBRATION, ("body", "views"), [], "views"),
    "an unknown view": (ENSEMBLE, ("body", "views", 0), "sideways", "views"),
    "an unknown method": (ENSEMBLE, ("body", "method"), "vote", "method"),
    "an unknown class": (CALIBRATION, ("body", "rule", "thresholds"), {"XYZ": 0.5}, "thresholds"),
    "an unknown architecture": (CHECKPOINT, ("body", "arch"), "resnet9000", "resnet9000"),
    "a deviation of 0": (CHECKPOINT, ("preprocessing", "std", 0), 0.0, "std"),
}


@pytest.mark.parametrize(("name", "place", "value", "word"), ODD_MODELS.values(), ids=ODD_MODELS)
def test_a_signed_odd_value_is_named(
    name: str,
    place: tuple[str | int, ...],
    value: object,
    word: str,
    own_model: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    signed(own_model, name, changed(read(own_model, name), place, value))
    assert_refused(run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model), 4, word)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(value: str, own_model: Path, image: Path, tmp_path: Path) -> None:
    text = (own_model / ENSEMBLE).read_text("utf-8")
    (own_model / ENSEMBLE).write_text(text.replace('"weight": 0.5', f'"weight": {value}'))
    assert_refused(
        run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model), 4, "ensemble.json", "finite"
    )


@pytest.mark.parametrize("outside", ["../../../elsewhere", "/elsewhere", "..", "a/b", "a\\b", "tiny\0"])
def test_a_network_from_outside_the_folder_is_not_loaded(
    outside: str, own_model: Path, image: Path, tmp_path: Path
) -> None:
    shutil.copytree(own_model / "models" / "tiny-fold0", tmp_path / "elsewhere")
    mutated = changed(read(own_model, ENSEMBLE), ("body", "members", 0, "name"), outside)
    signed(own_model, ENSEMBLE, mutated)
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, "ensemble.json", "members.0.name")


needs_links = pytest.mark.skipif(os.name != "posix", reason="links, FIFOs and devices as on POSIX")


def a_fifo(place: Path) -> None:
    os.mkfifo(place)


def a_link_to_a_device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def a_link_to_a_file(place: Path) -> None:
    copy_of = place.parents[2] / "precious"
    copy_of.write_bytes(b"{}")
    place.symlink_to(copy_of)


def a_dangling_link(place: Path) -> None:
    place.symlink_to("nothing-there")


def a_loop(place: Path) -> None:
    place.symlink_to(place.name)


def a_folder(place: Path) -> None:
    place.mkdir()


@needs_links
@pytest.mark.parametrize(
    "put", [a_fifo, a_link_to_a_device, a_link_to_a_file, a_dangling_link, a_loop, a_folder]
)
@pytest.mark.parametrize(
    "name", [*ARTIFACTS, "models/tiny-fold0/checkpoint.weights-6810e7531a7e.safetensors"]
)
def test_only_regular_files_are_opened(
    name: str, put: Callable[[Path], None], own_model: Path, image: Path, tmp_path: Path
) -> None:
    (own_model / name).unlink()
    put(own_model / name)
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, Path(name).name)


@needs_links
@pytest.mark.parametrize("folder", ["models", "models/tiny-fold0", "ensemble", "calibration"])
def test_a_linked_folder_does_not_lead_out_of_the_model(
    folder: str, own_model: Path, image: Path, tmp_path: Path
) -> None:
    shutil.move(own_model / folder, tmp_path / "elsewhere")
    (own_model / folder).symlink_to(tmp_path / "elsewhere")
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, "leads out of")


@needs_links
def test_the_model_itself_may_be_a_link(own_model: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(own_model)
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", tmp_path / "linked")
    assert done.exit_code == 0, done.output


def test_a_huge_json_is_not_read(own_model: Path, image: Path, tmp_path: Path) -> None:
    with (own_model / CALIBRATION).open("r+b") as file:
        file.truncate((64 << 20) + 1)
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, "calibration.json", "too large")


HEADERS = {
    "longer than the file": (10_000_000).to_bytes(8, "little") + b"{}",
    "of 2 ** 63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": (2).to_bytes(8, "little") + b"[]",
    "a shape beyond the file": (72).to_bytes(8, "little")
    + b'{"a":{"dtype":"F32","shape":[25000000,25000000],"data_offsets":[0,4]}}  '
    + b"1234",
    "an unknown type": (60).to_bytes(8, "little")
    + b'{"a":{"dtype":"X99","shape":[1],"data_offsets":[0,4]}}      '
    + b"1234",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_weights_with_a_lying_header_are_refused(
    content: bytes, own_model: Path, image: Path, tmp_path: Path
) -> None:
    checkpoint = read(own_model, CHECKPOINT)
    record = checkpoint["payloads"]["weights"]
    (own_model / CHECKPOINT).with_name(record["file"]).write_bytes(content)
    record.update(sha256=sha256_bytes(content), bytes=len(content))
    signed(own_model, CHECKPOINT, checkpoint)
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, "safetensors")


@pytest.mark.parametrize("name", [ENSEMBLE, "models/tiny-fold0/checkpoint.weights-6810e7531a7e.safetensors"])
def test_a_file_that_may_not_be_read_is_named(
    name: str, own_model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal comes from the call itself: root, who runs many suites, may read everything."""
    real = os.open

    def refusing(path: Path, flags: int, *more: int, **others: int) -> int:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *more, **others)

    monkeypatch.setattr(reading.os, "open", refusing)
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model)
    assert_refused(done, 4, Path(name).name, "Permission denied")


STAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "models/tiny/predictions-oof.json": (Predictions.load, ("ensemble",)),
    "ensemble/predictions-val.json": (Predictions.load, ("calibrate", "--policy", "published")),
    "dataset/manifest.json": (Manifest.load, ("info",)),
    "dataset/split.json": (
        lambda path: Split.load(path, Manifest.load(path.with_name("manifest.json"))),
        ("info",),
    ),
    "dataset/duplicates.json": (Duplicates.load, ("info", "--dataset")),
    "models/densenet121/state/state.json": (TrainingState.load, ("info",)),
    "evaluation/ensemble-val/evaluation.json": (Evaluation.load, ("info",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_any_odd_value_in_a_workspace_is_refused_or_harmless(
    name: str, old_version: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(old_version / "workspace", tmp_path / "ws"))
    load, command = STAGES[name]
    content, before = read(root, name), (root / name).read_bytes()
    refused: set[tuple[str | int, ...]] = set()
    accepted: dict[tuple[str | int, ...], dict[str, Any]] = {}
    for place, _, mutated in mutations(content):
        write(root, name, mutated)
        try:
            load(root / name)
        except ArtifactError:
            refused.add(place)
        else:
            accepted.setdefault(place, mutated)
        (root / name).write_bytes(before)
    assert refused
    for mutated in list(accepted.values())[:: max(1, len(accepted) // 8)]:
        write(root, name, mutated)
        done = run(*command, "-w", root)
        assert "should not happen" not in done.output, done.output
        assert done.exit_code in (0, 4), done.output
        (root / name).write_bytes(before)


TABLES = {
    "an unknown class": ("ensemble/predictions-val.json", ",NV,", ",XYZ,", ("calibrate",)),
    "no table": ("ensemble/predictions-val.json", "lesion_id", "lesion", ("calibrate",)),
    "a file outside": ("dataset/manifest.json", ".jpg,", ".jpg/../../../../secret,", ("info",)),
    "an unknown part": ("dataset/split.json", ",train,", ",training,", ("info",)),
    "a fold that is no number": ("dataset/split.json", ",0\n", ",x\n", ("info",)),
}


@pytest.mark.parametrize(("name", "old", "new", "command"), TABLES.values(), ids=TABLES)
def test_a_signed_odd_table_is_refused(
    name: str, old: str, new: str, command: tuple[str, ...], old_version: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(old_version / "workspace", tmp_path / "ws"))
    content = read(root, name)
    record = content["payloads"]["table"]
    file = (root / name).with_name(record["file"])
    table = file.read_text("utf-8")
    assert old in table
    data = table.replace(old, new).encode()
    file.write_bytes(data)
    record.update(sha256=sha256_bytes(data), bytes=len(data))
    write(root, name, content)
    done = run(*command, "-w", root)
    assert done.exit_code == 4, done.output
    assert "should not happen" not in done.output
    assert Path(name).name in done.output


@pytest.mark.parametrize("value", [-0.5, 25.0])
def test_stored_values_that_are_no_probabilities_are_refused(
    value: float, old_version: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(old_version / "workspace", tmp_path / "ws"))
    content = read(root, "ensemble/predictions-val.json")
    record = content["payloads"]["views"]
    file = root / "ensemble" / record["file"]
    tensors = load_tensors(file.read_bytes())
    tensors["view_probabilities"][0, 0, 0] = value
    data = save_tensors(tensors)
    file.write_bytes(data)
    record.update(sha256=sha256_bytes(data), bytes=len(data))
    write(root, "ensemble/predictions-val.json", content)
    assert_refused(run("calibrate", "-w", root), 4, "not probabilities")


@pytest.mark.parametrize("graph", [b"no graph", b"", b"\x08\x07"])
def test_an_export_that_no_runtime_can_run_is_refused(
    graph: bytes, own_model: Path, image: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    workspace = Workspace(own_model)
    for name in workspace.trained():
        export = Export("onnx", graph, np.zeros((7, 256), np.float32), {})
        export.save_for(Checkpoint.load(workspace.checkpoint(name)))
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model, "--runtime", "onnx")
    assert_refused(done, 4, "onnx export of tiny-fold0")
    assert not (tmp_path / "out.csv").exists()


def test_a_graph_that_asks_for_another_file_is_refused(
    own_model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights come from the network's own verified file; no file that a graph names is read."""
    from onnx import TensorProto, helper

    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(2 * 7))
    secret = TensorProto(name="secret", data_type=TensorProto.FLOAT16, dims=[1, 7])
    secret.data_location = TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="secret.bin")
    features = helper.make_tensor("features_of_all", TensorProto.FLOAT, [1, 256, 1, 1], [0.0] * 256)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["secret"], ["told"], to=TensorProto.FLOAT),
        helper.make_node("Max", ["mean", "told"], ["logits"]),
        helper.make_node("Identity", ["features_of_all"], ["features"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [None, 32, 32, 3])
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 7]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 256, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "net", [pixels], outputs, [secret, features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    workspace = Workspace(own_model)
    for name in workspace.trained():
        export = Export("onnx", model.SerializeToString(), np.zeros((7, 256), np.float32), {})
        export.save_for(Checkpoint.load(workspace.checkpoint(name)))
    done = run("predict", image, "-o", tmp_path / "out.csv", "--model", own_model, "--runtime", "onnx")
    assert_refused(done, 4, "onnx export of tiny-fold0", "cannot be run", "no folder")
    assert not (tmp_path / "out.csv").exists()
