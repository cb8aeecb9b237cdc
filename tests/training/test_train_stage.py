"""The train stage from images to artifacts, on generated images and a tiny network."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.files import exclusive, sha256_file
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.training_state import TrainingState
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.data.metadata import encode, n_columns, of_manifest
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.training import loader
from skinlesion_cli.errors import ArtifactError, ExitCode, SkinLesionError, UsageError
from skinlesion_cli.models.network import restore_network
from skinlesion_cli.models.training.distributed import Distributed
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import stage as calibrate
from skinlesion_cli.stages.ensemble import stage as ensemble
from skinlesion_cli.stages.train import fitting, jobs
from skinlesion_cli.stages.train import stage as train
from skinlesion_cli.stages.train.job import Dataset
from tests.support import tiny_models
from tests.training.small import Said, small_recipe


def test_training_leaves_a_checkpoint_predictions_history_and_curves(config):
    said = Said()
    result = train.run(config, said)
    workspace = Workspace(config.workspace)
    folder = workspace.model("tiny")
    done = Checkpoint.load(workspace.checkpoint("tiny"))
    assert done.preprocessing.model_dump() == {
        "input_size_px": 32,
        "interpolation": "antialias",
        "harmonise_px": 40,
        "field_px": None,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    assert done.initial_weights == "none (random)"
    assert result.figures["val_bacc"] == done.figures["val_bacc"]
    assert result.next_command == "skinlesion ensemble"
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert done.history_csv == (folder / "history.csv").read_bytes()
    assert Image.open(folder / "curves.png").size[0] > 800
    assert not (folder / "state").exists()
    assert next(list(row) for row in said.rows) == [
        *("epoch", "rate", "loss", "val_loss", "BACC", "MEL", "BCC", "AKIEC", "images/s", "waiting", "left")
    ]
    assert [row["epoch"] for row in said.rows] == ["1/2", "2/2"]
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    for part in ("val", "test"):
        found = Predictions.load(workspace.predictions("tiny", part))
        assert found.table["id"].tolist() == split.ids(part)
        assert len(found.views) == 12  # 8 of the whole image, 4 of its middle
        assert found.view_probabilities.sum(axis=2) == pytest.approx(1.0, abs=1e-5)
        assert found.artifact is not None
        assert done.artifact is not None
        assert found.artifact.inputs["checkpoint"] == done.artifact.sha256
    # The stored prediction is what the checkpoint says of the image file itself.
    row = manifest.rows(split.ids("val")).iloc[0]
    image = read_image((workspace.images / row["file"]).read_bytes(), target_px=40)
    with torch.inference_mode():
        logits = restore_network(done)(torch.from_numpy(to_input(image, done.preprocessing)[None].copy()))
    first = Predictions.load(workspace.predictions("tiny", "val")).view_probabilities[0, 0]
    assert logits.softmax(dim=1)[0].numpy() == pytest.approx(first, abs=1e-5)


def test_the_same_command_again_trains_nothing_and_other_settings_are_refused(config, monkeypatch):
    train.run(config, SilentReporter())
    path = Workspace(config.workspace).checkpoint("tiny")
    before = sha256_file(path)
    said = Said()
    train.run(config, said)
    assert (sha256_file(path), said.rows) == (before, [])
    other = config.replace(recipe=small_recipe("learning_rate=0.001"), seed=7)
    with pytest.raises(ArtifactError, match=r"seed 42 \(now 7\), learning_rate 0.0006 \(now 0.001\)"):
        train.run(other, said)
    train.run(other.replace(fresh=True), said)
    assert sha256_file(path) != before
    assert len(said.rows) == 2


def test_an_unfinished_training_of_other_settings_is_refused(config, monkeypatch):
    cut_after_first_epoch(config, monkeypatch)
    with pytest.raises(ArtifactError, match=r"unfinished training with other settings: epochs 2 \(now 3\)"):
        train.run(config.replace(recipe=small_recipe("epochs=3")), SilentReporter())
    said = Said()
    train.run(config.replace(recipe=small_recipe("epochs=1"), fresh=True), said)
    assert [row["epoch"] for row in said.rows] == ["1/1"]


def test_an_unfinished_training_of_a_version_with_fewer_settings_is_finished(config, monkeypatch):
    cut_after_first_epoch(config, monkeypatch)
    path = Workspace(config.workspace).training_state("tiny")
    state = TrainingState.load(path)
    identity = json.loads(state.identity)
    del identity["sampler_source_power"], identity["augmentation_omits"]
    replace(state, identity=json.dumps(identity)).save(path)
    given = config.replace(recipe=small_recipe("sampler_source_power=0.5"))
    with pytest.raises(ArtifactError, match=r"other settings: sampler_source_power 0.0 \(now 0.5\)\n"):
        train.run(given, SilentReporter())
    said = Said()
    train.run(config, said)
    assert [row["epoch"] for row in said.rows] == ["2/2"]


def cut_after_first_epoch(config, monkeypatch):
    from skinlesion_cli.stages.train import watching

    def cut(self, history, seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watching.Watcher, "__call__", cut)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, SilentReporter())


class OnTheCpu(TorchFunctionMode):
    """What is meant for a GPU is computed on the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def here(value):
            return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value

        return function(*map(here, args), **{key: here(value) for key, value in (kwargs or {}).items()})


@pytest.fixture
def waited(monkeypatch):
    """A GPU that is the CPU; what was waited for."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(jobs, "join_processes", lambda device: (Distributed(), gpu))
    waited = []
    for name, answer in {
        "synchronize": lambda device: waited.append(device),
        "max_memory_allocated": lambda device: 7_400_000_000,
        "mem_get_info": lambda device: (10**10, 10**10),
        "is_bf16_supported": lambda including_emulation: False,
        "get_device_properties": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    # A thread of its own feeds the GPU, which the mode below does not reach.
    cpu, images, augmentation = torch.device("cpu"), fitting.DeviceImages, fitting.BatchAugmentation
    monkeypatch.setattr(fitting, "DeviceImages", lambda given, device: images(given, cpu))
    monkeypatch.setattr(
        fitting, "BatchAugmentation", lambda size_px, device, omits: augmentation(size_px, cpu, omits)
    )
    return waited


def test_a_dry_run_on_a_gpu_tells_epochs_images_per_second_its_memory_and_hours(config, waited):
    gpu = torch.device("cuda")
    sizes = ["batch_size=16", "input_size_px=32", "field_px=40", "cache_size_px=40"]
    recipe = load_recipe("default", "tiny", environment={}, settings=sizes)
    with OnTheCpu():
        result = train.run(config.replace(recipe=recipe, dry_run=True), SilentReporter())
    figures = result.figures
    assert (figures["device"], figures["peak_memory_bytes"]) == ("cuda", 7_400_000_000)
    # Each step is waited for before its time is taken.
    assert waited == [gpu] * len(waited)
    assert len(waited) == figures["steps_per_epoch"] == 4
    (step_s,) = figures["seconds_per_step"].values()
    assert figures["images_per_second"] == {"32": pytest.approx(16 / step_s)}
    assert figures["training_seconds"] == pytest.approx(50 * figures["steps_per_epoch"] * step_s)
    text = " ".join(result.headline)
    assert "50 epochs" in text
    assert "7.4 GB of the GPU" in text
    table = result.tables[0]
    assert table.columns == ["size", "epochs", "images/s", "time per epoch"]
    assert table.rows[0][:2] == ["32 px", 50]


def test_a_dry_run_on_a_gpu_counts_the_wait_for_batches_that_are_made_ahead(config, waited, monkeypatch):
    take = loader.DeviceImages.take

    def slowly(images, chosen):
        time.sleep(0.15)
        return take(images, chosen)

    monkeypatch.setattr(loader.DeviceImages, "take", slowly)
    sizes = ["batch_size=4", "input_size_px=32", "field_px=40", "cache_size_px=40"]
    recipe = load_recipe("default", "tiny", environment={}, settings=sizes)
    with OnTheCpu():
        figures = train.run(config.replace(recipe=recipe, dry_run=True), SilentReporter()).figures
    # Three batches are ready when the first step is done; after them, each takes its time.
    (step_s,) = figures["seconds_per_step"].values()
    assert step_s > 0.14


def test_a_cut_training_goes_on_and_ends_as_an_unbroken_one(config, monkeypatch, tmp_path):
    whole = config.replace(workspace=tmp_path / "whole")
    whole.workspace.mkdir()
    (whole.workspace / "dataset").symlink_to(config.workspace / "dataset")
    train.run(whole, SilentReporter())
    cut_after_first_epoch(config, monkeypatch)
    said = Said()
    train.run(config, said)
    assert "resuming at epoch 2, step 1" in said.notes
    left, right = (Checkpoint.load(Workspace(c.workspace).checkpoint("tiny")) for c in (whole, config))
    assert left.weights == right.weights
    assert left.history_csv == right.history_csv


def test_a_training_that_was_cut_after_its_last_epoch_leaves_its_whole_history(config, monkeypatch):
    once = config.replace(recipe=small_recipe("epochs=1"))
    cut_after_first_epoch(once, monkeypatch)
    workspace = Workspace(config.workspace)
    assert not workspace.history("tiny").exists()
    train.run(once, SilentReporter())
    assert workspace.history("tiny").read_bytes() == Checkpoint.load(workspace.checkpoint("tiny")).history_csv
    assert workspace.curves("tiny").exists()


def test_a_batch_that_cannot_be_divided_among_the_processes_is_refused(config, monkeypatch):
    class Three(Distributed):
        size = 3

    monkeypatch.setattr(jobs, "join_processes", lambda device: (Three(), torch.device("cpu")))
    with pytest.raises(UsageError, match="3 processes"):
        train.run(config, SilentReporter())


def test_a_second_training_in_the_same_folder_fails_at_once(config):
    with (
        exclusive(Workspace(config.workspace).model("tiny"), "train"),
        pytest.raises(SkinLesionError, match="in use by process"),
    ):
        train.run(config, SilentReporter())


def test_images_that_changed_since_the_download_are_refused(dataset, config):
    (config.workspace / "dataset").unlink()
    shutil.copytree(dataset / "dataset", config.workspace / "dataset", symlinks=True)
    workspace = Workspace(config.workspace)
    # A cache holds the verified pixels of images that changed afterwards.
    shutil.rmtree(workspace.cache, ignore_errors=True)
    manifest = Manifest.load(workspace.manifest)
    ids = sorted(Split.load(workspace.split, manifest).ids("train"))[:7]
    changed = manifest.rows(ids)["file"].tolist()
    for file in changed:
        Image.new("RGB", (64, 48), (200, 150, 140)).save(workspace.images / file)
    for settings in (config, config.replace(dry_run=True)):
        with pytest.raises(ArtifactError) as caught:
            train.run(settings, SilentReporter())
        assert caught.value.exit_code is ExitCode.ARTIFACT
        assert any(file in caught.value.message for file in changed)
    with pytest.raises(ArtifactError) as caught:
        train.run(config, SilentReporter())
    assert [file in caught.value.message for file in changed] == [True] * 5 + [False] * 2
    assert "(7 in all)" in caught.value.message
    assert not workspace.checkpoint("tiny").exists()


def test_dry_run_tells_the_plan_and_writes_nothing(config):
    result = train.run(config.replace(dry_run=True), SilentReporter())
    figures = result.figures
    split = json.loads(Workspace(config.workspace).split.read_text())["body"]["counts"]
    assert figures["training_images"] == split["train"]
    assert figures["steps_per_epoch"] == split["train"] // 16
    # timm's test_efficientnet has 100,995 parameters with seven classes.
    assert figures["parameters"] == 100_995
    assert set(figures["seconds_per_step"]) == {"24", "32"}
    assert 0 < figures["seconds"] < 600
    assert figures["peak_memory_bytes"] > 50e6
    for size, step_s in figures["seconds_per_step"].items():
        assert figures["images_per_second"][size] == pytest.approx(16 / step_s)
    assert not Workspace(config.workspace).models.exists()
    assert not list(config.workspace.glob("dataset/cache/*80px*"))


def test_a_recipe_for_a_gpu_says_at_once_how_long_it_takes_without_one(config, monkeypatch):
    from skinlesion_cli.stages.train import planning
    from skinlesion_cli.stages.train.job import Job

    measure, batches = planning._time_steps, []

    def timed(job, trainer, size_px, n_steps):
        assert all(value > 0 for value in measure(job, trainer, size_px, n_steps))
        batches.append((trainer.recipe.batch_size, size_px))
        return 0.5, 1.0

    def decode(self, size_px):
        raise SkinLesionError("decoding starts")

    monkeypatch.setattr(planning, "_time_steps", timed)
    monkeypatch.setattr(Job, "cache", decode)
    sizes = ["epochs=50", "batch_size=16", "input_size_px=32", "field_px=40", "cache_size_px=40"]
    recipe = load_recipe("default", "tiny", settings=sizes, environment={})
    said = Said()
    with pytest.raises(SkinLesionError, match="decoding starts"):
        train.run(config.replace(recipe=recipe), said)
    (note,) = [note for note in said.notes if "for a GPU" in note]
    assert batches == [(4, 32)]
    # 64 training images are four steps per epoch, each four times as long as the one that was timed.
    assert "200 steps of 16 images at 32 px: about 20 min" in note
    assert "--recipe light" in note
    assert "--dry-run" in note
    said = Said()
    with pytest.raises(SkinLesionError, match="decoding starts"):
        train.run(config.replace(recipe=recipe, folds=3), said)
    assert any("for each of 3 folds" in note for note in said.notes)


def test_a_plan_for_one_of_several_folds_is_that_of_one(config, monkeypatch):
    from skinlesion_cli.stages.train import planning

    monkeypatch.setattr(planning, "_time_steps", lambda job, trainer, size_px: (0.0, 1.0))
    monkeypatch.setattr(planning, "_time_forward", lambda job, network: 0.0)
    some_images = planning._some_images
    monkeypatch.setattr(planning, "_some_images", lambda job, n: (some_images(job, n)[0], 0.5))
    monkeypatch.setattr(planning, "available_cores", lambda: 1)
    whole = config.replace(dry_run=True, folds=3, recipe=small_recipe("epochs=1", "progressive_sizes_px=[]"))
    result = train.run(whole, SilentReporter())
    n_steps = result.figures["steps_per_epoch"]
    # Each of the 105 images is decoded once, in half a second.
    assert result.figures["seconds"] == pytest.approx(3 * n_steps + 52.5)
    assert "3 folds one after the other" in result.headline[0]
    alone = train.run(whole.replace(fold=1), SilentReporter())
    assert alone.figures["seconds"] == pytest.approx(alone.figures["steps_per_epoch"] + 52.5)
    assert "fold 1 of 3" in alone.headline[0]


def test_gpus_that_stay_idle_are_named(config, waited, monkeypatch):
    said = Said()
    (job,) = jobs.make_jobs(config, said)
    for n_gpus in (1, 4):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n_gpus=n_gpus: n_gpus)
        train.note_idle_gpus(job)
    (note,) = said.notes
    assert note.startswith("one of 4 GPUs is used")
    assert "accelerate launch" in note


def test_a_warm_up_that_the_schedule_does_not_have_is_refused(config):
    recipe = small_recipe("schedule=plateau", "warmup_epochs=1")
    with pytest.raises(UsageError, match="warmup_epochs"):
        train.run(config.replace(recipe=recipe), SilentReporter())


def test_nothing_is_said_of_a_gpu_where_one_is_used_or_the_recipe_needs_none(config):
    from skinlesion_cli.stages.train.planning import note_without_gpu

    for recipe, device in ((small_recipe(), "cpu"), (load_recipe("default", "tiny", environment={}), "cuda")):
        said = Said()
        (job,) = jobs.make_jobs(config.replace(recipe=recipe), said)
        note_without_gpu([replace(job, device=torch.device(device))])
        assert said.notes == []


def test_the_plan_times_frozen_epochs_apart(config, monkeypatch):
    from skinlesion_cli.models.training.trainer import Trainer

    step, timed = Trainer.train_step, set()

    def watched(trainer, batch):
        timed.add((batch[0].shape[1], trainer.frozen))
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "train_step", watched)
    # One epoch of two at 24 px, then one at 32 px that is frozen from its beginning.
    sizes = "progressive_sizes_px=[[0.0, 24], [0.5, 32]]"
    recipe = small_recipe("epochs=2", sizes, "freeze_from=0.5", "freeze_stages=2")
    result = train.run(config.replace(recipe=recipe, dry_run=True), SilentReporter())
    assert set(result.figures["seconds_per_step"]) == {"24", "32-frozen"}
    assert [row[:2] for row in result.tables[0].rows] == [["24 px", 1], ["32 px, frozen", 1]]
    assert timed == {(24, False), (32, True)}


def test_logit_adjustment_reaches_the_loss(config, monkeypatch):
    from skinlesion_cli.models.training import trainer as loop

    loss, seen = loop.training_loss, []

    def watched(*arguments, **settings):
        seen.append(settings["logit_offsets"])
        return loss(*arguments, **settings)

    monkeypatch.setattr(loop, "training_loss", watched)
    recipe = small_recipe("epochs=1", "sampler=uniform", "logit_adjustment=1.0")
    train.run(config.replace(recipe=recipe, dry_run=True), SilentReporter())
    # Images drawn alike, nine of each class and ten of the last: ln 9/64 and ln 10/64.
    assert seen[0].tolist() == pytest.approx([-1.961659] * 6 + [-1.856298], abs=1e-5)


def test_images_of_a_rare_source_are_drawn_more_often_and_the_loss_knows_what_is_drawn(config, monkeypatch):
    from skinlesion_cli.models.training import trainer as loop

    loss, offsets, plans, planned = loop.training_loss, [], [], fitting.EpochPlan

    def watched(*arguments, **settings):
        offsets.append(settings["logit_offsets"])
        return loss(*arguments, **settings)

    def kept(**settings):
        plans.append(planned(**settings))
        return plans[-1]

    monkeypatch.setattr(loop, "training_loss", watched)
    monkeypatch.setattr(fitting, "EpochPlan", kept)
    # The images of the first class come from a second source: 9 of 64.
    monkeypatch.setattr(Dataset, "sources", lambda self, ids: np.where(self.labels(ids) == 0, "two", "one"))
    settings = ("sampler=weighted", "sampler_power=0.0", "sampler_source_power=1.0", "logit_adjustment=1.0")
    recipe = small_recipe("epochs=1", *settings)
    train.run(config.replace(recipe=recipe, dry_run=True), SilentReporter())
    assert sorted(set(plans[0].draw_weights)) == pytest.approx([1 / 55, 1 / 9])
    # Half of what is drawn is of the first class; the others share the other half, 9 or 10 of 55 each.
    assert offsets[0].tolist() == pytest.approx([-0.693147] + [-2.503255] * 5 + [-2.397895], abs=1e-5)


def test_something_has_to_be_left_to_learn(config):
    recipe = small_recipe("freeze_from=0.5", "freeze_stages=99")
    with pytest.raises(UsageError, match=r"freeze_stages 99 .* tiny"):
        train.run(config.replace(recipe=recipe), SilentReporter())


def test_folds_leave_one_table_of_out_of_fold_predictions(config):
    folds = config.replace(folds=3, recipe=small_recipe("epochs=1"))
    result = train.run(folds, SilentReporter())
    workspace = Workspace(config.workspace)
    split = Split.load(workspace.split, Manifest.load(workspace.manifest))
    assert workspace.trained() == ["tiny-fold0", "tiny-fold1", "tiny-fold2"]
    assert [entry["name"] for entry in result.figures["folds"]] == workspace.trained()
    found = Predictions.load(workspace.predictions("tiny", "oof"))
    expected = split.table[split.table["fold"] != ""]
    assert found.table["id"].tolist() == expected["id"].tolist()
    assert found.table["fold"].tolist() == expected["fold"].tolist()
    # Each image by the network that held it out.
    for fold in range(3):
        alone = Predictions.load(workspace.predictions(f"tiny-fold{fold}", "heldout"))
        rows = (found.table["fold"] == str(fold)).to_numpy()
        assert np.array_equal(found.view_probabilities[rows], alone.view_probabilities)
        assert alone.table["id"].tolist() == split.fold_ids(fold)[1]
    assert str(workspace.predictions("tiny", "oof")) in result.artifacts
    _folds_become_one_member(workspace, found)


def _folds_become_one_member(workspace: Workspace, out_of_fold: Predictions) -> None:
    """The ensemble takes the out-of-fold predictions as one member's; prediction averages the networks."""
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    merged = Predictions.load(workspace.ensemble_predictions("val"))
    # The ensemble averages the views of `d4`, which are stored first.
    assert merged.views == out_of_fold.views[:8]
    assert np.array_equal(merged.view_probabilities, out_of_fold.view_probabilities[:, :8])
    made = Ensemble.load(workspace.ensemble)
    assert [member.name for member in made.members] == ["tiny-fold0", "tiny-fold1", "tiny-fold2"]
    assert made.weights.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    test = Predictions.load(workspace.ensemble_predictions("test"))
    folds = [Predictions.load(workspace.predictions(f"tiny-fold{fold}", "test")) for fold in range(3)]
    mean = np.mean([fold.view_probabilities for fold in folds], axis=0)
    np.testing.assert_allclose(test.view_probabilities, mean[:, :8], atol=1e-6)
    calibrate.run(calibrate.CalibrateSettings(workspace=workspace.root), SilentReporter())
    bundle = Bundle.load(workspace)
    assert [member.name for member in bundle.members] == ["tiny-fold0", "tiny-fold1", "tiny-fold2"]
    # The ensemble exported them; each graph was compared on images that its network was not trained on.
    for fold, member in enumerate(bundle.members):
        graph = exports.Export.load_for(member, "onnx")
        held_out = min(64, len(held_out_ids(workspace, fold)))
        assert (graph.figures["images"], graph.figures["images_are"]) == (held_out, "validation images")
        assert graph.figures["largest_difference"] <= 1e-5


def held_out_ids(workspace: Workspace, fold: int) -> list[str]:
    return Split.load(workspace.split, Manifest.load(workspace.manifest)).fold_ids(fold)[1]


def test_folds_that_the_split_does_not_have_are_refused(config):
    with pytest.raises(UsageError, match=r"5 folds .* 3 folds") as caught:
        train.run(config.replace(folds=5), SilentReporter())
    assert "--split kfold --folds 5" in caught.value.hint


def test_metadata_encoding():
    table = pd.DataFrame(
        {
            "age_years": ["60", "", "unknown"],
            "sex": ["male", "Female", ""],
            "site": ["back", "lower extremity", "unknown"],
        }
    )
    patients = of_manifest(table)
    assert encode(patients, ("age", "sex")).tolist() == [
        pytest.approx([1, 0.6, 0, 1]),
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    sites = encode(patients, ("site",))
    assert sites.shape == (3, 14)
    assert sites.argmax(axis=1).tolist() == [2, 9, 0]
    assert sites.sum(axis=1).tolist() == [1, 1, 0]
    assert n_columns(("age", "sex", "site")) == 18
    assert encode(patients, ()).shape == (3, 0)


def test_metadata_trains_a_branch_and_predictions_need_none(config):
    settings = small_recipe("metadata_fields=[age, sex, site]")
    train.run(config.replace(recipe=settings), SilentReporter())
    done = Checkpoint.load(Workspace(config.workspace).checkpoint("tiny"))
    assert done.figures["metadata_columns"] == 18
    network = restore_network(done)
    assert network.metadata is not None
    pixels = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network(pixels), network(pixels, torch.zeros(2, 18)))
    workspace = Workspace(config.workspace)
    alone = Predictions.load(workspace.predictions("tiny", "val"))
    informed = Predictions.load(workspace.predictions("tiny", "val-metadata"))
    assert (alone.source, informed.part) == ("tiny", "val-metadata")
    # Age and site are known of every image, so every one is predicted otherwise.
    differ = (alone.view_probabilities != informed.view_probabilities).any(axis=(1, 2))
    assert differ.all()
    assert alone.table["id"].tolist() == informed.table["id"].tolist()
    # The first image at the first view, by hand: its row of the manifest through the branch.
    first = alone.table["id"][0]
    rows = encode(of_manifest(Manifest.load(workspace.manifest).rows([first])), ("age", "sex", "site"))
    assert rows[0, :2].tolist() == pytest.approx([1.0, 0.55])
    with torch.no_grad():
        added = network.metadata(torch.from_numpy(rows)) - network.metadata(torch.zeros(1, 18))
    logits = np.log(alone.view_probabilities[0, 0].astype(float)) + added[0].numpy()
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(informed.view_probabilities[0, 0], expected, atol=1e-5)


def test_folds_join_their_predictions_with_metadata_too(config):
    settings = small_recipe("epochs=1", "metadata_fields=[age]")
    result = train.run(config.replace(recipe=settings, folds=3), SilentReporter())
    workspace = Workspace(config.workspace)
    joined = Predictions.load(workspace.predictions("tiny", "oof-metadata"))
    alone = Predictions.load(workspace.predictions("tiny", "oof"))
    assert joined.table[["id", "fold"]].equals(alone.table[["id", "fold"]])
    assert str(workspace.predictions("tiny", "oof-metadata")) in result.artifacts
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root, export=False), SilentReporter())
    merged = Predictions.load(workspace.ensemble_predictions("val-metadata"))
    assert np.array_equal(merged.view_probabilities, joined.view_probabilities[:, :8])
    assert workspace.ensemble_predictions("test-metadata").exists()
    calibrate.run(calibrate.CalibrateSettings(workspace=workspace.root), SilentReporter())
    assert Bundle.load(workspace).metadata_calibration is not None


def test_a_model_is_trained_further_with_the_metadata_that_it_takes(config, tmp_path):
    root = tiny_models.make_workspace(tmp_path / "model", archs=("tiny",), metadata_fields=("age", "sex"))
    further = config.replace(weights="auto", model=str(root), recipe=small_recipe("epochs=1"))
    with pytest.raises(UsageError, match="takes the patient metadata age, sex, not none") as refused:
        train.run(further, SilentReporter())
    assert refused.value.hint == "Add --metadata age,sex."
    same = small_recipe("epochs=1", "metadata_fields=[age, sex]")
    train.run(further.replace(recipe=same), SilentReporter())
    plain = tiny_models.make_workspace(tmp_path / "plain", archs=("tiny",))
    with pytest.raises(UsageError, match="metadata none, not age, sex"):
        train.run(further.replace(model=str(plain), recipe=same, fresh=True), SilentReporter())


def test_a_checkpoint_written_before_a_setting_existed_can_be_read(config):
    from skinlesion_cli.artifacts.files import sha256_bytes
    from skinlesion_cli.config.schema import canonical_json

    train.run(config.replace(recipe=small_recipe("epochs=1")), SilentReporter())
    path = Workspace(config.workspace).checkpoint("tiny")
    envelope = json.loads(path.read_text())
    del envelope["sha256"], envelope["body"]["recipe"]["drop_last"], envelope["body"]["figures"]["weights"]
    envelope["config_sha256"] = sha256_bytes(canonical_json(envelope["body"]["recipe"]))
    path.write_text(json.dumps(envelope | {"sha256": sha256_bytes(canonical_json(envelope))}))
    assert Checkpoint.load(path).recipe.drop_last is True
    envelope["body"]["recipe"]["epochs"] = 9
    path.write_text(json.dumps(envelope | {"sha256": sha256_bytes(canonical_json(envelope))}))
    with pytest.raises(ArtifactError, match="does not have the hash"):
        Checkpoint.load(path)


def test_published_recipe_trains(config):
    published = small_recipe("drop_last=false", "cache_size_px=32", name="published")
    published = published.model_copy(update={"harmonise_px": None, "progressive_sizes_px": ()})
    said = Said()
    train.run(config.replace(recipe=published), said)
    assert len(said.rows) == 2


def test_tensorboard_logs_every_epoch(config):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train.run(config.replace(tensorboard=True), SilentReporter())
    log = events.EventAccumulator(str(Workspace(config.workspace).tensorboard("tiny")))
    log.Reload()
    assert [event.step for event in log.Scalars("val_bacc")] == [1, 2]
    history = pd.read_csv(Workspace(config.workspace).history("tiny"))
    assert [event.value for event in log.Scalars("val_loss")] == pytest.approx(history["val_loss"].tolist())


def test_a_training_begun_again_is_resumed_without_being_asked_to_start_over(config, monkeypatch):
    workspace, said = Workspace(config.workspace), Said()
    train.run(config, SilentReporter())
    other = config.replace(seed=7)
    whole = other.replace(workspace=config.workspace.with_name("whole"))
    shutil.copytree(config.workspace, whole.workspace)
    train.run(whole.replace(fresh=True), SilentReporter())
    save = fitting._save

    def save_and_fail(job, trainer):
        save(job, trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_save", save_and_fail)
        with pytest.raises(KeyboardInterrupt):
            train.run(other.replace(fresh=True), SilentReporter())
    former = Checkpoint.load(workspace.checkpoint("tiny"))
    assert former.seed == config.seed
    # Settings that neither the network nor what is unfinished was trained with are refused as before.
    with pytest.raises(ArtifactError, match="trained with other settings"):
        train.run(config.replace(seed=8), SilentReporter())
    train.run(other, said)
    assert any(note.startswith("resuming at epoch") for note in said.notes)
    resumed = Checkpoint.load(workspace.checkpoint("tiny"))
    assert resumed.weights == Checkpoint.load(Workspace(whole.workspace).checkpoint("tiny")).weights
    assert not workspace.training_state("tiny").exists()
