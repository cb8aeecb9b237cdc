"""The same image, the same prediction: from Python and from every command, on every runtime,
in every TTA mode.

The inputs are those where copies of "run the model" used to disagree: a JPEG so large that it is decoded at
reduced scale, members of an archive, DICOM, pages of a TIFF, images that the quality gate flags, and a file
that cannot be read.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli import Classifier
from skinlesion_cli.artifacts import exports, prediction_file
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.prediction_columns import unescape_formula
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.reading.inputs import ImageInput, expand, load
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule
from skinlesion_cli.decisions.quality_gate import STATISTICS, fit_gate
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import UsageError
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.loading import TTA_MODES
from skinlesion_cli.inference.prediction import ERROR, Prediction
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import bench, select
from skinlesion_cli.stages.explain import stage as explain
from skinlesion_cli.stages.predict import stage as predict
from skinlesion_cli.stages.predict.settings import PredictSettings
from tests.support import tiny_models
from tests.support.class_lists import ISIC2018, TABLE

# 2400 x 1800 pixels for networks of 32: decoded at an eighth of its scale.
LARGE_PX = (2400, 1800)
THRESHOLDS = {"MEL": 0.25, "AKIEC": 0.3}


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """Coarse colours with blocks of grain over them: reduced scale and full scale give different pixels."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(40, 216, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    block = max(1, width // 150)
    blocks = generator.normal(0, 40, (-(-height // block), -(-width // block), 1))
    grain = blocks.repeat(block, 0).repeat(block, 1)[:height, :width]
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, quality=90)
    return file.getvalue()


def write_dicom(path: Path, image: Image.Image) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VLPhotographicImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Columns, dataset.Rows = image.size
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = np.asarray(image).tobytes()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder and an archive."""
    pytest.importorskip("pydicom")
    root = tmp_path_factory.mktemp("parity")
    folder = root / "in"
    folder.mkdir()
    large = encoded(photograph(1, *LARGE_PX), "JPEG")
    (folder / "large.jpg").write_bytes(large)
    (folder / "small.png").write_bytes(encoded(photograph(2, 120, 90), "PNG"))
    (folder / "dark.png").write_bytes(encoded(photograph(3, 120, 90).point(lambda v: v // 8), "PNG"))
    (folder / "=broken.jpg").write_bytes(large[:4000])
    pages = [photograph(seed, 120, 90) for seed in (6, 7)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    write_dicom(folder / "lesion.dcm", photograph(4, 300, 200))
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("sub/large.jpg", large)
        archive.write(folder / "lesion.dcm", "lesion.dcm")
    return [folder, root / "more.zip"]


@pytest.fixture(scope="module")
def gated_workspace(inputs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny networks with random weights, exported for every runtime, and a gate that flags `dark.png`."""
    # Wide enough apart for probabilities that differ between images and scales.
    root = tiny_models.make_workspace(tmp_path_factory.mktemp("gated") / "ws", spread=40.0)
    workspace = Workspace(root)
    bundle = Bundle.load(workspace)
    pictures = [np.asarray(photograph(seed, 120, 90)) for seed in range(20)]
    measured = [[statistics(picture)[name] for name in STATISTICS] for picture in pictures]
    # Spread widely, so that only darkness is unusual.
    spread = np.repeat(measured, 20, axis=0)
    spread = spread + np.random.default_rng(0).normal(0, 2 * spread.std(axis=0) + 1e-3, spread.shape)
    gate = fit_gate(STATISTICS, spread, false_alarm_rate=0.05)
    assert bundle.ensemble.artifact is not None
    StoredQualityGate(gate, {}).save(workspace.gate, inputs={"split": bundle.ensemble.artifact})
    if importlib.util.find_spec("onnxscript") is None:
        return root
    from skinlesion_cli.models.network import restore_network
    from skinlesion_cli.models.onnx_export import to_int8, to_onnx

    for checkpoint in bundle.members:
        network = restore_network(checkpoint)
        classifier = network.classifier.weight.detach().numpy()
        model = to_onnx(network, checkpoint.preprocessing.input_size_px)
        batch = np.stack([np.asarray(photograph(seed, 32, 32)) for seed in range(8)])
        for kind in exports.FORMATS:
            content = to_int8(model, [batch]) if kind == "onnx-int8" else model
            exports.Export(kind, content, classifier, {}).save_for(checkpoint)
    return root


@pytest.fixture(scope="module")
def workspace_for(gated_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The workspace calibrated with a TTA mode."""
    made: dict[str, Path] = {}

    def calibrated(mode: str) -> Path:
        if mode not in made:
            root = tmp_path_factory.mktemp("mode") / "ws"
            shutil.copytree(gated_workspace, root)
            views = tta.MODES["d4" if mode == tta.ADAPTIVE else mode]
            rule = DecisionRule(
                ISIC2018, thresholds=THRESHOLDS, malignant_threshold=0.5, conformal_minimum=(0.1,) * 7
            )
            stopping = StoppingRule(rule, margin_factor=0.3, n_views=8, weights=(0.5, 0.5))
            stored = {"stopping_rule": stopping.to_json()} if mode == tta.ADAPTIVE else None
            ensemble = replace(Ensemble.load(Workspace(root).ensemble), views=views)
            calibration = Calibration(rule, "published", mode, views, stopping=stored)
            calibration.save(
                Workspace(root).calibration, inputs={"ensemble": ensemble.save(Workspace(root).ensemble)}
            )
            made[mode] = root
        return made[mode]

    return calibrated


def runnable(runtime: str) -> str:
    """The runtime, or the test is skipped where this machine cannot run it."""
    if not RUNTIMES[runtime].is_installed:
        pytest.skip(f"{RUNTIMES[runtime].package} is not installed")
    if runtime != "torch" and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed: nothing can be exported")
    if runtime == "openvino-bf16":
        from skinlesion_cli.inference.runtimes.openvino import has_bfloat16

        if not has_bfloat16():
            pytest.skip("this processor has no bfloat16 arithmetic")
    return runtime


def line(prediction: Prediction) -> bytes:
    """The row without what only says where the image came from."""
    no_overlay = dict.fromkeys(
        ("overlay", "overlay_magnitude", "overlay_outside_lesion", "overlay_at_border"), None
    )
    plain = replace(prediction, row=None, id="x", **no_overlay)
    return TABLE.encode(plain.to_row(ISIC2018.codes), "csv")


def by_command(workspace: Path, inputs: list[Path], output: Path, runtime: str) -> dict[str, Prediction]:
    """What `predict` wrote, by the end of the id."""
    config = PredictSettings(
        workspace=workspace,
        inputs=[str(path) for path in inputs],
        output=output,
        runtime=runtime,
        device="cpu",
    )
    predict.run(config, SilentReporter())
    rows = map(Prediction.from_row, prediction_file.read_rows(output, output.suffix[1:], TABLE))
    return {end_of(row.id): row for row in rows}


def end_of(identity: str) -> str:
    return "zip:" + identity.split(".zip/")[1] if ".zip/" in identity else identity.rsplit("/", 1)[-1]


@pytest.mark.parametrize("mode", TTA_MODES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_python_and_every_command_predict_the_same(
    runtime: str, mode: str, inputs: list[Path], workspace_for: Any, tmp_path: Path
) -> None:
    workspace = workspace_for(mode)
    rows = by_command(workspace, inputs, tmp_path / "rows.csv", runnable(runtime))
    folder, archive = inputs

    classifier = Classifier.load(workspace, device="cpu", runtime=runtime)
    predictions = {end_of(p.id): p for p in classifier.predict([*sorted(folder.iterdir()), archive])}
    assert set(predictions) == set(rows)
    for name, prediction in predictions.items():
        assert line(prediction) == line(rows[name]), name
    assert [p.status for p in predictions.values()].count(ERROR) == 1
    assert rows["=broken.jpg"].status == ERROR
    assert line(rows["pages.tif#1"]) != line(rows["pages.tif#2"])
    in_memory = [(folder / name).read_bytes() for name in ("large.jpg", "lesion.dcm")]
    in_memory.append(read_image(folder / "small.png"))
    in_memory.append((folder / "pages.tif").read_bytes())
    names = ("large.jpg", "lesion.dcm", "small.png", "pages.tif#1", "pages.tif#2")
    for name, prediction in zip(names, classifier.predict(in_memory), strict=True):
        assert line(prediction) == line(rows[name]), name

    readable = {name: row for name, row in rows.items() if row.status != ERROR}
    select.run(
        select.SelectSettings(
            workspace=workspace,
            inputs=[str(path) for path in inputs],
            output=tmp_path / "list.csv",
            runtime=runtime,
            device="cpu",
        ),
        SilentReporter(),
    )
    with (tmp_path / "list.csv").open(newline="") as file:
        chosen = {end_of(row["image"]): row for row in csv.DictReader(file)}
    assert {name: row["decision"] for name, row in chosen.items()} == {
        name: row.decision for name, row in readable.items()
    }
    for name, row in readable.items():
        # The entropy of the calibrated probabilities, in nats over ln 7.
        assert row.probabilities is not None
        p = np.array(list(row.probabilities.values()), dtype=np.float64)
        expected = -(p * np.log(np.maximum(p, 1e-12))).sum() / np.log(7)
        assert float(chosen[name]["entropy"]) == pytest.approx(expected, abs=1e-5)


# Drawing overlays costs more than all else here, and what is explained does not depend on the pair of both.
@pytest.mark.parametrize(
    ("runtime", "mode"),
    [*((runtime, tta.ADAPTIVE) for runtime in RUNTIMES), *(("torch", mode) for mode in tta.MODES)],
)
def test_the_class_that_is_explained_is_the_class_that_was_decided(
    runtime: str, mode: str, inputs: list[Path], workspace_for: Any, tmp_path: Path
) -> None:
    workspace = workspace_for(mode)
    predictions = Classifier.load(workspace, device="cpu", runtime=runnable(runtime)).predict(
        expand([str(path) for path in inputs])
    )
    config = explain.ExplainSettings(
        workspace=workspace,
        inputs=[str(path) for path in inputs],
        output=tmp_path / "maps",
        device="cpu",
        runtime=runtime,
    )
    explain.run(config, SilentReporter())
    with (tmp_path / "maps" / explain.TABLE).open(newline="") as file:
        maps = {unescape_formula(row["id"]): row for row in csv.DictReader(file)}
    assert set(maps) == {p.id for p in predictions if p.status != ERROR}
    for prediction in predictions:
        if prediction.probabilities is not None and prediction.decision is not None:
            made = maps[prediction.id]
            assert made["class"] == made["decision"] == prediction.decision
            assert made["probability"] == f"{prediction.probabilities[prediction.decision]:.6f}"


def test_the_inputs_can_tell_the_ways_apart(inputs: list[Path], workspace_for: Any, tmp_path: Path) -> None:
    """Full-scale decoding gives other probabilities, the gate flags one image,
    and images stop at different steps.
    """
    workspace = workspace_for(tta.ADAPTIVE)
    folder, archive = inputs
    classifier = Classifier.load(workspace, device="cpu", runtime="torch")
    large = folder / "large.jpg"
    decoded = classifier.decode(ImageInput("large.jpg", large))
    assert decoded.shape == (225, 300, 3)
    whole, reduced = classifier.predict([read_image(large), large])
    assert whole.probabilities is not None
    assert reduced.probabilities is not None
    assert max(abs(whole.probabilities[k] - reduced.probabilities[k]) for k in whole.probabilities) > 1e-4
    everything = classifier.predict([folder / "small.png", folder / "dark.png", *expand([str(archive)])])
    assert [p.flagged for p in everything[:2]] == [False, True]
    assert everything[1].triage == "review"
    assert "too_dark" in (everything[1].quality or ())
    assert len({p.forward_passes for p in everything}) > 1
    assert len({p.decision for p in everything}) > 1


def test_limits_hold_for_everybody(inputs: list[Path], workspace_for: Any) -> None:
    workspace, large = workspace_for("none"), inputs[0] / "large.jpg"
    bundle = Bundle.load(Workspace(workspace))
    predictor = Predictor.of_bundle(bundle, device="cpu", runtime="torch", max_pixels=2400 * 1800 - 1)
    pixels = load(ImageInput("x", large)).pixels
    predictions = predictor.predict([large, large.read_bytes(), pixels, np.full((20, 20, 3), 128, np.uint8)])
    reasons = [(p.error or "").split(":")[0] for p in predictions]
    assert reasons == ["too_large", "too_large", "too_large", "blank"]


def test_only_what_was_decoded_at_a_reduced_scale_is_read_again(
    inputs: list[Path], workspace_for: Any
) -> None:
    predictor = Predictor.of_bundle(
        Bundle.load(Workspace(workspace_for("none"))), device="cpu", runtime="torch"
    )
    names = ("small.png", "broken.jpg", "large.jpg")
    sources = [ImageInput(name, inputs[0] / name) for name in names]
    batch = predictor.run(sources)
    assert (batch.decoded, batch.reduced) == ((0, 2), (False, True))
    small, large = predictor.in_full(sources, batch)
    assert small is batch.images[0]
    assert callable(large)
    assert large().shape == (1800, 2400, 3)


def test_a_folder_gives_one_prediction_per_image_and_an_empty_one_is_refused(
    inputs: list[Path], workspace_for: Any, tmp_path: Path
) -> None:
    classifier = Classifier.load(workspace_for("none"), device="cpu", runtime="torch")
    predictions = classifier.predict([inputs[0] / "small.png", inputs[0]])
    assert [end_of(p.id) for p in predictions] == [
        "small.png",
        *("=broken.jpg", "dark.png", "large.jpg", "lesion.dcm", "pages.tif#1", "pages.tif#2", "small.png"),
    ]
    with pytest.raises(UsageError, match=tmp_path.name):
        classifier.predict([tmp_path])


def test_bench_takes_the_forward_passes_of_prediction(inputs: list[Path], workspace_for: Any) -> None:
    workspace, sample = workspace_for(tta.ADAPTIVE), inputs[0] / "large.jpg"
    config = bench.BenchSettings(
        workspace=workspace, sample=[sample], images=10, seconds=0.1, runtime="torch", device="cpu"
    )
    adaptive = bench.run(config, SilentReporter()).figures["adaptive"]
    (prediction,) = Classifier.load(workspace, device="cpu", runtime="torch").predict([sample])
    assert adaptive["sample_mean_forward_passes"] == prediction.forward_passes


def test_doctor_predicts_as_everybody_does() -> None:
    from skinlesion_cli.stages.doctor import models
    from skinlesion_cli.stages.doctor.finding import DoctorSettings

    finding = next(iter(models.self_test(DoctorSettings(workspace=Path("nowhere")))))
    (prediction,) = Classifier.load("builtin", device="cpu").predict([models.picture()])
    assert finding.state == "ok"
    assert finding.figures["prediction"] == prediction.to_row(ISIC2018.codes)
