"""Networks in timm's format, from a folder and from a hub that lives in this process."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from timm.models import save_for_hf

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import ArtifactError, UsageError, WeightsError
from skinlesion_cli.models import backbones, timm_format
from skinlesion_cli.models.network import LesionNet, restore_network
from skinlesion_cli.models.pretrained import initialise
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.train import stage as train
from tests.support.command_line import assert_refused, run
from tests.training.small import Said, small_recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A vision transformer of two blocks with nine classes, as timm stores it."""
    torch.manual_seed(1)
    network = timm.create_model("test_vit", num_classes=9, depth=2, img_size=160)
    path = tmp_path_factory.mktemp("stored") / "our-vit"
    save_for_hf(
        network,
        str(path),
        model_args={"depth": 2},
        safe_serialization=True,
    )
    config = json.loads((path / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A hub with one repository; the calls that it got."""
    calls = []
    snapshot = tmp_path / "hub" / COMMIT
    snapshot.mkdir(parents=True)

    def hf_hub_download(repo_id, filename, revision=None, **_):
        calls.append((repo_id, filename, revision))
        if repo_id != "clinic/our-vit" or not (folder / filename).is_file():
            raise OSError(f"404: {repo_id} has no {filename}")
        (snapshot / filename).write_bytes((folder / filename).read_bytes())
        return str(snapshot / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return calls


def test_a_folder_names_its_architecture_arguments_and_images(folder):
    found = timm_format.resolve(f"local-dir:{folder}")
    assert (found.name, found.arch, found.options) == ("local-dir:our-vit", "timm-test_vit", (("depth", 2),))
    assert (found.mean, found.std, found.input_size_px) == (MEAN, STD, 160)
    spec = found.spec
    assert (spec.mean, spec.std, spec.hub_id, spec.folder) == (MEAN, STD, None, folder.resolve())


def test_its_weights_are_loaded_except_those_of_its_classes(folder):
    spec = timm_format.resolve(f"local-dir:{folder}").spec
    network = LesionNet(
        spec, small_recipe("input_size_px=160", "progressive_sizes_px=[]").preprocessing(), n_classes=7
    )
    source = initialise(network, "auto")
    assert source.startswith("folder our-vit sha256 ")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True)
    own = network.backbone.state_dict()
    for name, tensor in theirs.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(own[name], tensor), name
    assert network.classifier.weight.shape[0] == 7
    assert len(network.backbone.blocks) == 2


def test_it_is_trained_and_predicts_without_its_folder(folder, config):
    found = timm_format.resolve(f"local-dir:{folder}")
    settings = small_recipe(
        "epochs=1", "progressive_sizes_px=[]", "freeze_from=null", "freeze_stages=0", "layer_decay=0.7"
    )
    said = Said()
    train.run(config.replace(arch=found.arch, network=found, recipe=settings, weights="auto"), said)
    assert any("local-dir:our-vit: test_vit, pretrained at 160 px" in note for note in said.notes)
    stored = Checkpoint.load(Workspace(config.workspace).checkpoint("timm-test_vit"))
    assert stored.figures["model_args"] == {"depth": 2}
    assert stored.figures["weights"] == "local-dir:our-vit"
    assert (stored.preprocessing.mean, stored.preprocessing.std) == (MEAN, STD)
    assert stored.preprocessing.interpolation == "antialias-bicubic"
    assert str(folder) not in json.dumps(stored.figures) + stored.initial_weights
    network = restore_network(stored)
    assert len(network.backbone.blocks) == 2
    # What is stored of a held-out image is what prediction makes of its file, through the same filter.
    workspace = Workspace(config.workspace)
    manifest = Manifest.load(workspace.manifest)
    row = manifest.rows(Split.load(workspace.split, manifest).ids("val")).iloc[0]
    image = read_image((workspace.images / row["file"]).read_bytes(), target_px=40)
    with torch.inference_mode():
        logits = network(torch.from_numpy(to_input(image, stored.preprocessing)[None].copy()))
    first = Predictions.load(workspace.predictions("timm-test_vit", "val")).view_probabilities[0, 0]
    assert logits.softmax(dim=1)[0].numpy() == pytest.approx(first, abs=1e-6)
    # The same training with other weights is another one.
    with pytest.raises(ArtifactError, match="weights local-dir:our-vit"):
        train.run(config.replace(arch=found.arch, recipe=settings, weights="none"), SilentReporter())
    again = timm_format.ForeignNetwork.of_checkpoint(stored)
    assert again is not None
    assert (again.spec.options, again.spec.mean) == ((("depth", 2),), MEAN)


def test_it_is_named_at_the_command_line(folder, config):
    small = [f"input_size_px={32}", "progressive_sizes_px=[]", "batch_size=8", "epochs=1"]
    settings = [word for setting in small for word in ("--set", setting)]
    arguments = ("train", "--arch", f"local-dir:{folder}", "--recipe", "light", "-w", config.workspace)
    done = run(*arguments, *settings, "--tune", "last", "--device", "cpu", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]
    assert figures["arch"] == "timm-test_vit"
    assert figures["trained_parameters"] < figures["parameters"]
    assert_refused(run(*arguments, "--init", "builtin"), 2, "--init")


def test_a_network_of_the_hub_is_pinned_to_the_commit_that_was_read(hub, folder):
    found = timm_format.resolve("hf-hub:clinic/our-vit@main")
    assert found.name == "hf-hub:clinic/our-vit@main"
    assert found.weights == f"clinic/our-vit@{COMMIT}"
    network = LesionNet(found.spec, small_recipe("progressive_sizes_px=[]").preprocessing(), n_classes=7)
    assert initialise(network, "auto") == f"hub clinic/our-vit {COMMIT[:12]}"
    assert hub == [
        ("clinic/our-vit", "config.json", "main"),
        ("clinic/our-vit", "model.safetensors", COMMIT),
    ]


def test_what_the_hub_lacks_is_told(hub):
    with pytest.raises(WeightsError, match=r"hf-hub:clinic/none cannot be read .*404") as refused:
        timm_format.resolve("hf-hub:clinic/none")
    assert "local-dir:FOLDER" in refused.value.hint
    for wrong in ("hf-hub:our-vit", "hf-hub:../../etc", "hf-hub:a/b c"):
        with pytest.raises(UsageError, match="not a name of a network"):
            timm_format.resolve(wrong)


def test_pickled_weights_are_not_accepted(tmp_path, folder):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"model\.safetensors missing") as refused:
        timm_format.resolve(f"local-dir:{tmp_path}")
    assert "safe_serialization=True" in refused.value.hint


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"architecture": None}, UsageError, "names no architecture"),
        ({"architecture": "../vit"}, UsageError, "names no architecture"),
        ({"model_args": {"depth": 10**9}}, ArtifactError, "depth"),
        ({"model_args": {"act_layer": {"a": 1}}}, ArtifactError, "act_layer"),
        ({"pretrained_cfg": {"input_size": [3, 32, 32]}}, ArtifactError, "mean"),
        ({"pretrained_cfg": []}, ArtifactError, "damaged"),
    ],
)
def test_configurations_from_elsewhere_are_checked(folder, tmp_path, changes, error, words):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(error, match=words):
        timm_format.resolve(f"local-dir:{tmp_path}")


def test_arguments_that_lead_to_files_are_left_out(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= {"checkpoint_path": "/etc/passwd", "pretrained_cfg": {"file": "x"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert timm_format.resolve(f"local-dir:{tmp_path}").options == (("depth", 2),)


def test_the_default_recipe_follows_a_larger_pretraining():
    def sizes(pretrained_px, *settings, recipe="default"):
        found = load_recipe(recipe, "timm-x", settings=settings, environment={}, pretrained_px=pretrained_px)
        return found.input_size_px, found.field_px, found.cache_size_px

    assert sizes(None) == sizes(160) == sizes(224) == (224, 450, 450)
    assert sizes(384) == (384, 450, 450)
    assert sizes(518) == (518, 518, 518)
    assert sizes(518, "input_size_px=336") == (336, 518, 518)
    # Recipes for a CPU stay small.
    assert sizes(518, recipe="light")[0] == sizes(None, recipe="light")[0]
    assert backbones.backbone("timm:vit_small_patch14_dinov2.lvd142m").pretrained_px == 518


def test_names_for_completion_are_those_of_timm_without_loading_it():
    names = {name.removeprefix("timm:") for name in backbones.timm_names() if name.startswith("timm:")}
    known = set(timm.list_pretrained())
    assert len(known & names) > 0.97 * len(known)
    assert {"resnet50.a1_in1k", "convnext_tiny.in12k_ft_in1k", "vit_small_patch14_dinov2.lvd142m"} <= names
    # A name that is offered is one that timm takes, but for a few without weights.
    assert len(names - known) < 0.05 * len(names)
