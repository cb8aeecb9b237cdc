"""A packed model: predicts like the one it was packed from; which model is used is never a guess."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from skinlesion_cli.artifacts.bundle import Bundle, copy_model, locate_finished, locate_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.training_images import StoredTrainingImages
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.decisions.fingerprints import FingerprintSet
from skinlesion_cli.decisions.quality_gate import STATISTICS, fit_gate
from skinlesion_cli.errors import ArtifactError, DataError, UsageError
from skinlesion_cli.inference.exporting import write_graphs
from skinlesion_cli.models.network import restore_network, to_half_precision
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import pack
from skinlesion_cli.stages.train import averaging
from skinlesion_cli.stages.train.initial import StartingModel
from skinlesion_cli.stages.train.stage import TrainSettings
from tests.support.tiny_models import make_workspace


def packed(source: Path, target: Path) -> None:
    pack.run(pack.PackSettings(workspace=source, output=target), SilentReporter())


@pytest.fixture(scope="module")
def with_graphs(tmp_path_factory) -> Path:
    """A finished model of one network that has its ONNX graph. To be copied, not changed."""
    root = make_workspace(tmp_path_factory.mktemp("exported") / "ws", archs=("tiny",))
    assert write_graphs(Workspace(root), ["tiny-fold0"], SilentReporter()) == {}
    return root


def test_the_copy_is_the_same_model_and_holds_nothing_else(with_graphs, tmp_path):
    source = Path(shutil.copytree(with_graphs, tmp_path / "ws"))
    (source / "dataset").mkdir()
    (source / "dataset" / "patient.jpg").write_bytes(b"an image")
    packed(source, tmp_path / "packed")
    before, after = (Bundle.load(Workspace(tmp_path / name)) for name in ("ws", "packed"))
    assert after.sha256 == before.sha256
    assert [m.weights for m in after.members] == [m.weights for m in before.members]
    kinds = {path.suffix for path in (tmp_path / "packed").rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".csv", ".onnx"}


def test_a_folder_with_a_model_is_not_packed_over(with_graphs, tmp_path):
    source = Path(shutil.copytree(with_graphs, tmp_path / "ws"))
    packed(source, tmp_path / "packed")
    with pytest.raises(UsageError, match="there is a model in"):
        packed(source, tmp_path / "packed")
    with pytest.raises(UsageError, match="is the workspace itself"):
        packed(source, source)


def test_an_unfinished_model_is_not_packed(tmp_path):
    source = make_workspace(tmp_path / "ws")
    (source / "calibration" / "calibration.json").unlink()
    with pytest.raises(ArtifactError, match=r"calibration\.json is not there"):
        packed(source, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_copy_that_was_cut_off_is_no_model(tmp_path, monkeypatch):
    """Least of all one without its quality gate, its list of training images or its second calibration."""
    source = Workspace(make_workspace(tmp_path / "ws", archs=("tiny",), metadata_fields=("age",)))
    whole = Bundle.load(source)
    checkpoints = tuple(member.artifact.sha256 for member in whole.members)
    StoredTrainingImages(FingerprintSet(np.ones((1, 32), np.uint8)), 1, checkpoints).save(
        source.training_images
    )
    statistics = np.random.default_rng(0).normal(0.0, 1.0, (220, len(STATISTICS)))
    StoredQualityGate(fit_gate(STATISTICS, statistics), {}).save(source.gate)
    whole = Bundle.load(source)
    copyfile, cut = shutil.copyfile, OSError(28, "No space left on device")
    for n_files in range(100):
        target = Workspace(tmp_path / f"cut{n_files}")
        left = iter(range(n_files))

        def copy_some(path, copy, left=left):
            if next(left, None) is None:
                raise cut
            return copyfile(path, copy)

        monkeypatch.setattr(shutil, "copyfile", copy_some)
        try:
            copy_model(source, target, whole)
        except OSError:
            with pytest.raises(ArtifactError):
                Bundle.load(target)
        else:
            break
    assert n_files > 8
    assert Bundle.load(target).sha256 == whole.sha256


def test_an_altered_payload_is_not_packed(tmp_path):
    source = make_workspace(tmp_path / "ws")
    weights = next((source / "models").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError):
        packed(source, tmp_path / "packed")


def test_the_own_model_goes_before_the_built_in_one_and_an_unfinished_one_is_not_passed_over(
    tmp_path, monkeypatch
):
    built_in = Workspace(make_workspace(tmp_path / "box"))
    monkeypatch.setattr("skinlesion_cli.artifacts.bundle.bundled_model", lambda: built_in)
    monkeypatch.chdir(tmp_path)
    assert locate_model(Workspace(Path("skinlesion-workspace"))) == built_in
    own = Workspace(tmp_path / "ws")
    with pytest.raises(ArtifactError, match="there is no workspace"):
        locate_model(own)
    (own.dataset).mkdir(parents=True)
    assert locate_model(own) == built_in
    assert locate_model(own, str(tmp_path / "other")) == Workspace(tmp_path / "other")
    state = own.model("tiny") / "state"
    state.mkdir(parents=True)
    assert locate_model(own) == own
    with pytest.raises(ArtifactError, match="there is no trained network"):
        Bundle.load(locate_model(own))
    assert locate_model(own, "builtin") == built_in


def test_each_step_that_an_unfinished_model_lacks_is_named_with_the_way_around_it(tmp_path):
    own = Workspace(make_workspace(tmp_path / "ws"))
    assert locate_finished(own) == own

    def hint() -> str:
        with pytest.raises(ArtifactError) as error:
            locate_finished(own)
        assert "--model builtin" in error.value.hint
        with pytest.raises(ArtifactError) as plainly:
            Bundle.load(own)
        assert "builtin" not in plainly.value.hint
        return plainly.value.hint

    own.calibration.unlink()
    assert hint() == "Run `skinlesion calibrate`."
    own.ensemble.unlink()
    assert hint() == "Run `skinlesion ensemble`, then `skinlesion calibrate`."
    for name in own.trained():
        own.checkpoint(name).unlink()
        (own.model(name) / "state").mkdir()
    begun = hint()
    assert "skinlesion train" in begun
    assert all(path.name in begun for path in own.models.iterdir())


def test_half_precision_rounds_kernels_and_keeps_norms():
    content = save({"kernel": torch.tensor([[1.0001, 2.0]]), "norm": torch.tensor([1.0001])})
    rounded = load(to_half_precision(content))
    assert rounded["kernel"].dtype == torch.float16
    # Between 1 and 2 float16 has steps of 2 ** -10.
    assert rounded["kernel"].tolist() == [[1.0, 2.0]]
    assert rounded["norm"].dtype == torch.float32
    assert rounded["norm"].item() == pytest.approx(1.0001, abs=1e-7)
    with pytest.raises(ArtifactError, match="too large for half precision: big"):
        to_half_precision(save({"big": torch.tensor([[1e6]])}))


@pytest.fixture(scope="module")
def folds(skinlesion, generated, tmp_path_factory) -> Path:
    """A finished model of two folds in half precision, trained one fold at a time, and packed."""
    folder = tmp_path_factory.mktemp("folds")
    train = (
        *("train", "--arch", "tiny", "--weights", "none", "--epochs", 1, "--workers", 0, "--folds", 2),
        *("--set", "input_size_px=32", "--set", "progressive_sizes_px=[]", "--set", "cache_size_px=40"),
        *("--recipe", "light", "--set", "harmonise_px=null"),
    )
    for arguments in (
        ("download", "--from", generated, "--split", "kfold", "--folds", 2),
        (*train, "--fold", 1),
        (*train, "--half"),
        ("ensemble",),
        ("calibrate", "--policy", "published"),
        ("pack", "--output", "packed", "--with-predictions"),
    ):
        done = skinlesion(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        if "--fold" in arguments:
            assert not (folder / "skinlesion-workspace/models/tiny/predictions-oof.json").exists()
    return folder


def test_folds_are_stored_and_predicted_with_in_half_precision(folds):
    workspace = Workspace(folds / "skinlesion-workspace")
    for fold in range(2):
        done = Checkpoint.load(workspace.checkpoint(f"tiny-fold{fold}"))
        assert done.figures["stored_precision"] == "float16"
        kernels = {t.dtype for t in load(done.weights).values() if t.dim() > 1}
        assert kernels == {torch.float16}
        assert {p.dtype for p in restore_network(done).parameters()} == {torch.float32}
    told = json.loads((folds / "packed/ensemble/predictions-val.json").read_text())
    assert told["body"]["images"] == 105


def test_half_precision_is_not_taken_for_full(folds, skinlesion):
    done = skinlesion(
        *("train", "--arch", "tiny", "--weights", "none", "--epochs", 1, "--workers", 0, "--folds", 2),
        *("--set", "input_size_px=32", "--set", "progressive_sizes_px=[]", "--set", "cache_size_px=40"),
        *("--recipe", "light", "--set", "harmonise_px=null"),
        cwd=folds,
    )
    assert done.returncode == 4
    assert "models/tiny-fold0 was stored in half precision" in done.stderr


def test_the_name_of_the_weights_does_not_depend_on_where_they_lie(tmp_path):
    def name(weights: str = "auto", model: str | None = None) -> str:
        recipe = load_recipe("light", "tiny", environment={})
        settings = TrainSettings(workspace=tmp_path, arch="tiny", recipe=recipe, weights=weights, model=model)
        return settings.weights_name

    assert name() == "auto"
    assert name("none") == "none"
    assert name("auto", "builtin") == "model:builtin"
    assert name("auto", "/here/ours") == name("auto", "ours") == "model:ours"
    assert name("/here/net.safetensors") == "net.safetensors"


def test_prediction_says_which_model_it_used(folds, skinlesion, generated):
    image = next(generated.rglob("*.jpg"))
    arguments = ("predict", image, "--tta", "d4", "--force", "--runtime", "torch")
    own = skinlesion(*arguments, "-o", "own.csv", cwd=folds)
    other = skinlesion(*arguments, "-o", "other.csv", "--model", "packed", cwd=folds)
    assert (own.returncode, other.returncode) == (0, 0), own.stderr + other.stderr
    assert (folds / "own.csv").read_bytes() == (folds / "other.csv").read_bytes()
    assert "model: tiny-fold0+tiny-fold1 (" in other.stderr


def test_fine_tuning_refuses_images_that_the_model_has_seen(folds, skinlesion, generated, tmp_path):
    common = (
        *("train", "--init", folds / "packed", "--workers", 0, "--epochs", 1),
        *("--set", "input_size_px=32", "--set", "progressive_sizes_px=[]", "--set", "cache_size_px=40"),
        *("--recipe", "light", "--set", "harmonise_px=null"),
    )
    # The network of fold 0 would be judged on images of fold 1 too, which it was trained on.
    done = skinlesion("download", "--from", generated, "--split", "grouped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = skinlesion(*common, cwd=tmp_path)
    assert done.returncode == DataError.exit_code, done.stderr
    assert "validation or test images were in the training of tiny-fold0+tiny-fold1" in done.stderr
    # What the network of fold 1 held out, it may be judged on; nothing else.
    same = tmp_path / "ws"
    shutil.copytree(folds / "skinlesion-workspace/dataset", same / "dataset")
    done = skinlesion(*common, "--folds", 2, "--fold", 1, "--workspace", same, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "initial weights: model tiny-fold0+tiny-fold1, tiny-fold1" in done.stderr


def test_fine_tuning_starts_from_the_packed_weights(folds, skinlesion, tmp_path):
    import make_images

    make_images.make(tmp_path / "own", 70, seed=9, width=96, height=72, official=True)
    for path in sorted((tmp_path / "own").rglob("*.csv")):
        path.write_text(path.read_text().replace("GEN_", "OWN_"))
    for path in sorted((tmp_path / "own").rglob("GEN_*.jpg")):
        path.rename(path.with_name(path.name.replace("GEN_", "OWN_")))
    done = skinlesion("download", "--from", tmp_path / "own", "--split", "grouped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = skinlesion(
        *("train", "--init", folds / "packed", "--workers", 0, "--epochs", 1),
        *("--set", "input_size_px=32", "--set", "progressive_sizes_px=[]", "--set", "cache_size_px=40"),
        *(
            "--recipe",
            "light",
            "--set",
            "harmonise_px=null",
            "--set",
            "learning_rate=1e-12",
            "--set",
            "ema_decay=null",
        ),
        *("--set", "weight_decay=0"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "initial weights: model tiny-fold0+tiny-fold1, tiny-fold0" in done.stderr
    before = Checkpoint.load(Workspace(folds / "packed").checkpoint("tiny-fold0"))
    after = Checkpoint.load(Workspace(tmp_path / "skinlesion-workspace").checkpoint("tiny"))
    old, new = (dict(restore_network(c).named_parameters()) for c in (before, after))
    for name, tensor in old.items():
        np.testing.assert_allclose(new[name].detach(), tensor.detach(), atol=1e-6)


def test_the_mean_of_models_is_evaluated_fold_by_fold_without_training(folds, skinlesion, tmp_path):
    """Two models of the same folds: the packed one, and one that was trained from it for another epoch."""
    size = (
        *("--workers", 0, "--folds", 2, "--set", "input_size_px=32", "--set", "progressive_sizes_px=[]"),
        *("--set", "cache_size_px=40", "--set", "harmonise_px=null"),
    )
    second = ("train", "--init", folds / "packed", "--epochs", 1, *size, "--set", "ema_decay=null")
    mean = ("average", "--model", folds / "packed", "--model", "second", "-w", "mean")
    for workspace in ("second", "mean"):
        shutil.copytree(folds / "skinlesion-workspace/dataset", tmp_path / workspace / "dataset")
    for arguments in (
        (*second, "-w", "second"),
        ("ensemble", "-w", "second"),
        ("calibrate", "--policy", "published", "-w", "second"),
        mean,
        ("ensemble", "-w", "mean"),
    ):
        done = skinlesion(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for fold in range(2):
        one, two, average = (
            Checkpoint.load(Workspace(folder).checkpoint(f"tiny-fold{fold}"))
            for folder in (folds / "packed", tmp_path / "second", tmp_path / "mean")
        )
        states = [{k: t.double() for k, t in load(c.weights).items()} for c in (one, two, average)]
        moved = 0.0
        for name, tensor in states[2].items():
            if not name.endswith("num_batches_tracked"):
                np.testing.assert_allclose(tensor, (states[0][name] + states[1][name]) / 2, atol=1e-6)
                moved = max(moved, float((states[0][name] - states[1][name]).abs().max()))
        assert moved > 1e-4  # otherwise either of the two would pass for the mean
        assert average.initial_weights.startswith("mean of 2: model tiny-fold0+tiny-fold1, tiny-fold")
        history = average.history_csv.decode().splitlines()
        assert [line.split(",")[:3] for line in history[1:]] == [["0", "", ""]]
        assert average.figures["best_epoch"] == average.figures["epochs"] == 0
        # The stored figure is the balanced accuracy of the stored predictions, single view.
        heldout = Predictions.load(Workspace(tmp_path / "mean").predictions(f"tiny-fold{fold}", "heldout"))
        decided = heldout.view_probabilities[:, 0].argmax(axis=1)
        recalls = [(decided[heldout.labels == c] == c).mean() for c in np.unique(heldout.labels)]
        assert average.figures["val_bacc"] == pytest.approx(np.mean(recalls), abs=1e-9)

    again = skinlesion(*mean, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "weights: mean of" not in again.stderr  # it was there already
    other = skinlesion(*mean[:-2], "--model", "second", "-w", "mean", cwd=tmp_path)
    assert other.returncode == ArtifactError.exit_code
    assert "mean:packed+second (now mean:packed+second+second)" in other.stderr
    alone = skinlesion("average", "--model", "second", "-w", "mean", cwd=tmp_path)
    assert alone.returncode == UsageError.exit_code, alone.stderr


def test_networks_of_different_folds_have_no_mean(folds):
    """Recognised by their folds even if a model does not state which images it was trained on."""
    members = Bundle.load(Workspace(folds / "packed")).members
    models = [
        StartingModel(Workspace(Path(name)), SimpleNamespace(members=(member,), model_id=name))  # type: ignore[arg-type]
        for name, member in zip(("one", "other"), members, strict=True)
    ]
    job = SimpleNamespace(fold=None, reporter=SilentReporter())
    with pytest.raises(UsageError) as refused:
        averaging._mean(job, models)  # type: ignore[arg-type]
    assert "model one, tiny-fold0" in refused.value.message
    assert "model other, tiny-fold1" in refused.value.message


def test_a_training_needs_epochs(folds, skinlesion):
    settings = ("--arch", "tiny", "--weights", "none", "--folds", 2)
    done = skinlesion("train", *settings, "--set", "epochs=0", cwd=folds)
    assert done.returncode == 2
    assert "skinlesion average" in done.stderr


def test_folds_are_exported_and_gated_on_images_that_were_held_out(folds, skinlesion):
    workspace = Workspace(folds / "skinlesion-workspace")
    everything = Manifest.load(workspace.manifest)
    held_out = [len(Split.load(workspace.split, everything).fold_ids(fold)[1]) for fold in range(2)]
    assert sum(held_out) == 105
    pytest.importorskip("onnxruntime")
    done = skinlesion("export", "--json", cwd=folds)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["figures"]["networks"]
    assert [told[f"tiny-fold{fold}"]["images"] for fold in range(2)] == held_out
    assert {entry["images_are"] for entry in told.values()} == {"validation images"}
    # Far too few for a gate: of features, so it uses pixels only, and then of training images, too.
    done = skinlesion("gate", cwd=folds)
    assert done.returncode == 1
    (count,) = re.findall(r"needs at least 200 images, there are (\d+)", done.stderr)
    assert int(count) == 105 - held_out[0]
