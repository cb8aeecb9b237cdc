"""Images that a model has seen in training: listed by `gate`, packed without ids, said in every row."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli import Classifier
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.training_images import StoredTrainingImages
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.spectrum import spectrum
from skinlesion_cli.decisions.fingerprints import FingerprintSet, fingerprints_of
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.errors import ArtifactError, DataError
from skinlesion_cli.inference.prediction import IN_TRAINING
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import at_home
from skinlesion_cli.stages.predict import watch
from skinlesion_cli.stages.predict.settings import PredictSettings
from tests.support.command_line import assert_refused, rows_of, run
from tests.support.scenes import altered, scene

pytestmark = pytest.mark.command_line
N_SEEN = 12


def stored(seeds: range, **options: object) -> StoredTrainingImages:
    spectra = np.stack([spectrum(np.asarray(scene(seed, 96))) for seed in seeds])
    return StoredTrainingImages(FingerprintSet(fingerprints_of(spectra)[0]), len(seeds), **options)


@pytest.fixture
def model(tiny_workspace: Path, tmp_path: Path) -> Path:
    """A model that was trained on the scenes 0 to 11."""
    root = Path(shutil.copytree(tiny_workspace, tmp_path / "model"))
    members = Bundle.load(Workspace(root)).members
    checkpoints = tuple(member.artifact.sha256 for member in members)
    stored(range(N_SEEN), checkpoints=checkpoints).save(Workspace(root).training_images)
    return root


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Scenes 0 and 1 stored anew, turned and mirrored, a scene that is new, and one without detail."""
    folder = tmp_path / "asked"
    folder.mkdir()
    altered(scene(0)).save(folder / "recoloured.jpg", quality=70)
    scene(1).resize((320, 240)).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png")
    scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=80)
    scene(50).save(folder / "new.jpg")
    smooth = np.linspace(100, 140, 96).astype(np.uint8)
    Image.fromarray(np.broadcast_to(smooth[:, None, None], (96, 96, 3)).copy()).save(folder / "smooth.png")
    return folder


def test_an_image_of_the_training_is_recognised_however_it_was_stored(
    model: Path, files: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    done = run("predict", files, "-w", model, "-o", output, "--report", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    notes = {name: row["notes"] for name, row in rows_of(output).items()}
    assert notes == {
        "recoloured.jpg": IN_TRAINING,
        "turned.png": IN_TRAINING,
        "mirrored.jpg": IN_TRAINING,
        "new.jpg": "",
        "smooth.png": "",
    }
    said = json.loads(done.stdout)
    assert said["figures"]["in_training"] == 3
    (warning,) = [each for each in said["warnings"] if "training data" in each]
    assert "3 of 5 images" in warning
    assert "mirrored.jpg, recoloured.jpg, turned.png" in warning
    page = (tmp_path / "out-report.html").read_text("utf-8")
    assert page.count(IN_TRAINING) == 3


def test_explain_warns_of_them_too(model: Path, files: Path, tmp_path: Path) -> None:
    done = run("explain", files, "-w", model, "-o", tmp_path / "maps", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["figures"]["in_training"] == 3
    (warning,) = [each for each in said["warnings"] if "training data" in each]
    assert "3 of 5 images" in warning
    assert "mirrored.jpg, recoloured.jpg, turned.png" in warning


def test_select_warns_of_those_that_it_chose(model: Path, files: Path, tmp_path: Path) -> None:
    done = run("select", files, "-w", model, "-o", tmp_path / "list.csv", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    (warning,) = [each for each in json.loads(done.stdout)["warnings"] if "training data" in each]
    assert warning.startswith("3 of the images to label ")
    with (tmp_path / "list.csv").open(newline="", encoding="utf-8") as file:
        chosen = [row["image"] for row in csv.DictReader(file)]
    # Named in the order of the list.
    seen = [name for name in chosen if name in ("mirrored.jpg", "recoloured.jpg", "turned.png")]
    assert ", ".join(seen) in warning
    assert len(chosen) == 5


def test_select_of_new_images_does_not_warn(model: Path, files: Path, tmp_path: Path) -> None:
    done = run("select", files / "new.jpg", "-w", model, "-o", tmp_path / "list.csv", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    assert not any("training data" in each for each in json.loads(done.stdout)["warnings"])


class _Ended(BaseException):
    """Ends a watch."""


def test_a_watch_notes_them_as_they_arrive(model: Path, files: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(SilentReporter):
        def note(self, text: str) -> None:
            notes.append(text)

    looks = iter(range(2))

    def pause(_seconds: float) -> None:
        if next(looks, None) is None:
            raise _Ended

    settings = PredictSettings(workspace=model, inputs=(str(files),), output=tmp_path / "out.csv")
    with pytest.raises(_Ended):
        watch.run(settings, Notes(), pause=pause)
    (arrived,) = [each for each in notes if "new images" in each]
    assert arrived.startswith("5 new images: ")
    assert "3 in the training data: mirrored.jpg, recoloured.jpg, turned.png" in arrived


def test_the_python_interface_says_the_same_of_pixels(model: Path) -> None:
    predictions = Classifier.load(model, device="cpu").predict([np.asarray(scene(3)), np.asarray(scene(60))])
    assert [each.notes for each in predictions] == [(IN_TRAINING,), None]
    assert [each.in_training for each in predictions] == [True, False]


def test_a_model_without_a_list_says_nothing(tiny_workspace: Path) -> None:
    assert Bundle.load(Workspace(tiny_workspace)).training_images is None
    (prediction,) = Classifier.load(tiny_workspace, device="cpu").predict([np.asarray(scene(3))])
    assert prediction.notes is None


def test_another_list_is_another_model(model: Path, tiny_workspace: Path) -> None:
    """So that a run which was started with one is not resumed with the other."""
    before, members = Bundle.load(Workspace(model)).sha256, Bundle.load(Workspace(model)).members
    checkpoints = tuple(member.artifact.sha256 for member in members)
    stored(range(N_SEEN + 1), checkpoints=checkpoints).save(Workspace(model).training_images)
    assert (
        len({before, Bundle.load(Workspace(model)).sha256, Bundle.load(Workspace(tiny_workspace)).sha256})
        == 3
    )


def test_evaluating_a_table_of_training_images_warns(model: Path, files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    assert run("predict", files, "-w", model, "-o", output, "--quiet").exit_code == 0
    truth = tmp_path / "truth.csv"
    names = list(rows_of(output))
    truth.write_text(
        "image,label\n" + "".join(f"{name},{('MEL', 'NV')[i % 2]}\n" for i, name in enumerate(names))
    )
    options = ("--source", output, "--truth", truth, "--resamples", 0, "-o", tmp_path / "ev")
    done = run("evaluate", *options, "-w", tmp_path / "ws", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    (warning,) = [each for each in json.loads(done.stdout)["warnings"] if "training data" in each]
    assert warning.startswith("3 of 5 images")
    assert "turned.png" in warning


def test_a_model_is_not_calibrated_on_its_training_images(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        for seed in range(N_SEEN - 2, N_SEEN + 20):
            altered(scene(seed)).save(folder / f"photo{seed}.png")
            table.writerow([f"photo{seed}.png", "MEL" if seed % 2 else "NV"])
    settings = at_home.RecalibrateSettings(
        model=str(model),
        on=folder / "labels.csv",
        output=tmp_path / "calibrated",
        fit=FitSettings(policy="none", probability_method="temperature"),
        device="cpu",
    )
    with pytest.raises(
        DataError, match="2 of these images are in the training data of the model: photo10, photo11"
    ):
        at_home.run(settings, SilentReporter())
    assert not (tmp_path / "calibrated").exists()


def labelled(folder: Path, seeds: range) -> Path:
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        for seed in seeds:
            scene(seed).save(folder / f"photo{seed}.png")
            table.writerow([f"photo{seed}.png", "MEL" if seed % 2 else "NV"])
    return folder / "labels.csv"


def test_a_calibrated_model_recognises_the_images_that_it_was_calibrated_on(
    model: Path, tmp_path: Path
) -> None:
    settings = at_home.RecalibrateSettings(
        model=str(model),
        on=labelled(tmp_path / "ours", range(30, 50)),
        output=tmp_path / "calibrated",
        fit=FitSettings(policy="none", probability_method="temperature"),
        device="cpu",
    )
    at_home.run(settings, SilentReporter())
    classifier = Classifier.load(tmp_path / "calibrated", device="cpu")
    asked = [np.asarray(scene(seed)) for seed in (3, 30, 49, 60)]
    assert [each.in_training for each in classifier.predict(asked)] == [True, True, True, False]
    listed = StoredTrainingImages.load(Workspace(tmp_path / "calibrated").training_images)
    assert listed.n_images == N_SEEN + 20


def test_a_calibration_that_fails_leaves_no_model_with_the_calibration_of_before(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DataError("too few lesions")

    monkeypatch.setattr(at_home.stage, "run", fail)
    settings = at_home.RecalibrateSettings(
        model=str(model),
        on=labelled(tmp_path / "ours", range(30, 50)),
        output=tmp_path / "calibrated",
        device="cpu",
    )
    with pytest.raises(DataError, match="too few lesions"):
        at_home.run(settings, SilentReporter())
    with pytest.raises(ArtifactError, match="skinlesion calibrate"):
        Bundle.load(Workspace(tmp_path / "calibrated"))


def test_every_image_that_networks_or_decisions_are_fitted_on_is_listed(gated: Path, tmp_path: Path) -> None:
    workspace = Workspace(gated / "ws")
    everything = Manifest.load(workspace.manifest)
    seen = Split.load(workspace.split, everything).seen_ids()
    assert 0 < len(seen) <= 330
    figures = json.loads((gated / "gate.json").read_text())["figures"]
    assert figures["recognised_training_images"] == len(seen)
    listed = StoredTrainingImages.load(workspace.training_images)
    assert listed.n_images == len(seen)
    assert listed.artifact.inputs == {"split": Split.load(workspace.split, everything).artifact.sha256}
    # In the order of their bytes, so that it says nothing of the dataset.
    codes = listed.fingerprints.codes.tolist()
    assert codes == sorted(codes)
    files = sorted(workspace.images.rglob("*.jpg"))[::16]
    done = run("predict", *files, "-w", workspace.root, "-o", tmp_path / "out.csv", "--quiet")
    assert done.exit_code == 0, done.output
    assert {row["notes"] for row in rows_of(tmp_path / "out.csv").values()} == {IN_TRAINING}


def test_a_packed_model_recognises_them_and_names_none(gated: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert run("pack", "-w", gated / "ws", "-o", packed, "--quiet").exit_code == 0
    envelope = packed / "calibration" / "training-images.json"
    assert json.loads(envelope.read_text())["body"]["n_images"] == 330
    content = b"".join(path.read_bytes() for path in envelope.parent.glob("training-images*"))
    everything = Manifest.load(Workspace(gated / "ws").manifest).table
    for column in ("id", "lesion_id", "file"):
        assert not any(value.encode() in content for value in everything[column])
    image = sorted((gated / "in").rglob("*.jpg"))[0]
    done = run("predict", image, "--model", packed, "-o", "-", "--quiet")
    assert json.loads(done.stdout)["notes"] == IN_TRAINING


def test_a_list_that_does_not_cover_a_network_is_refused(
    tiny_workspace: Path, files: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_workspace, tmp_path / "later"))
    # Listed before these networks were trained, and they do not say on which split.
    stored(range(3)).save(Workspace(root).training_images, inputs={"split": "a" * 64})
    done = run("predict", files, "-w", root, "-o", tmp_path / "out.csv")
    assert_refused(done, 4, "tiny-fold0", "skinlesion gate")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("damage", ["payload", "shape", "count", "method"])
def test_a_damaged_list_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "training-images.json"
    good = stored(range(3))
    if damage == "shape":
        object.__setattr__(good.fingerprints, "codes", np.zeros((3, 31), np.uint8))
    good.save(path)
    if damage == "payload":
        (payload,) = tmp_path.glob("*.safetensors")
        payload.write_bytes(payload.read_bytes()[:-1] + b"\0")
    elif damage in ("count", "method"):
        content = good._content()
        change = {"count": {"n_fingerprints": 4}, "method": {"method": "another"}}[damage]
        changed = type(content)(dict(content.body) | change, content.payloads)
        monkeypatch.setattr(StoredTrainingImages, "_content", lambda self: changed)
        good.save(path)
    with pytest.raises(ArtifactError, match="training-images"):
        StoredTrainingImages.load(path)


def test_on_disk_and_back(tmp_path: Path) -> None:
    codes = np.array([[9] * 32, [3] * 32, [9] * 32], np.uint8)
    StoredTrainingImages(FingerprintSet(codes), 5, ("b" * 64,)).save(tmp_path / "t.json")
    again = StoredTrainingImages.load(tmp_path / "t.json")
    # One photograph in the dataset twice is one fingerprint.
    assert again.fingerprints.codes.tolist() == [[3] * 32, [9] * 32]
    assert (again.n_images, again.checkpoints) == (5, ("b" * 64,))
