"""Views, the engine, the stopping rule, and the two runtimes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.data.metadata import PatientMetadata
from skinlesion_cli.data.preprocess import resize_square, to_input
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule, stopped_means
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.engine import Engine, EngineMember
from skinlesion_cli.inference.runtimes.base import Outputs, softmax
from tests.support.class_lists import ISIC2018


@pytest.mark.parametrize("name", [name for name in tta.VIEWS if tta.is_whole(name)])
def test_undoing_a_view_brings_the_image_back(name: str) -> None:
    image = np.arange(2 * 3 * 5 * 3).reshape(2, 3, 5, 3)  # not square: a wrong axis shows
    seen = tta.apply(name, image)
    np.testing.assert_array_equal(tta.invert(name, seen, (-3, -2)), image)
    assert (seen.shape[1:3] == (5, 3)) == (name in ("transpose", "rot90", "rot270", "antitranspose"))


def test_the_eight_views_are_all_different() -> None:
    image = np.arange(9).reshape(1, 3, 3, 1)
    assert len({tta.apply(name, image).tobytes() for name in tta.MODES["d4"]}) == 8


@pytest.mark.parametrize("name", [name for name in tta.VIEWS if name.startswith("zoomed-")])
def test_a_zoomed_view_stretches_the_middle_and_turns(name: str) -> None:
    # Pixel i of 10 shows the place 4.5 + (i - 4.5) * 0.7 = 1.35 + 0.7 i of the row,
    # here 10 times that and 100 more.
    rows = 10.0 * np.arange(10.0)[:, None] + np.full((1, 4), 100.0)
    wanted = [113.5, 120.5, 127.5, 134.5, 141.5, 148.5, 155.5, 162.5, 169.5, 176.5]
    image = rows[None, :, :, None].astype(np.float32)
    whole = name.removeprefix("zoomed-")
    seen = tta.invert(whole, tta.apply(name, image), (-3, -2))
    np.testing.assert_allclose(seen[0, :, :, 0], np.repeat(np.array(wanted)[:, None], 4, axis=1), atol=1e-4)
    pixels = tta.invert(whole, tta.apply(name, image.astype(np.uint8)), (-3, -2))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[0, :, 0, 0] - np.array(wanted)).max() <= 0.5 + 1e-4
    with pytest.raises(ValueError, match="a part of the image"):
        tta.invert(name, seen, (-3, -2))


def test_a_zoomed_view_does_not_see_the_border() -> None:
    image = np.zeros((1, 20, 20, 3), np.uint8)
    image[:, 3:17, 3:17] = 200  # 0.7 of 20 pixels: the middle 14
    np.testing.assert_array_equal(tta.apply("zoomed-rot90", image)[0, 1:-1, 1:-1], np.full((18, 18, 3), 200))
    image[:, 3:17, 3:17] = 0
    image[:, :2] = image[:, -2:] = 255
    assert not tta.apply("zoomed-rot90", image).any()


def test_the_views_of_zoom_are_those_of_d4_each_once() -> None:
    assert sorted(name.removeprefix("zoomed-") for name in tta.MODES["zoom"]) == sorted(tta.MODES["d4"])
    assert [tta.is_whole(name) for name in tta.MODES["zoom"]] == [True, False] * 4


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("crop50-centre-transpose", (10, 30), (10, 30)),
        ("crop70-top-left-rot90", (0, 28), (0, 28)),
        ("crop85-bottom-right-rot90", (6, 40), (6, 40)),
        ("crop85-top-right-rot270", (0, 34), (6, 40)),
        ("crop70-bottom-left-rot270", (12, 40), (0, 28)),
    ],
)
def test_a_crop_is_cut_from_the_field_and_turned(name, rows, columns) -> None:
    """The field of 40 pixels is twice as fine as the input of 20: a crop of a half shows its own pixels."""
    field = np.zeros((1, 40, 40, 3), np.uint8)
    field[:, rows[0] : rows[1], columns[0] : columns[1]] = 200
    inputs = np.zeros((1, 20, 20, 3), np.uint8)
    # Where the crop is not twice as fine, its outermost pixels take a part from beyond its border.
    seen = tta.show(name, inputs, field)
    np.testing.assert_array_equal(seen[:, 1:-1, 1:-1], np.full((1, 18, 18, 3), 200))
    assert seen.min() > 140
    # A mark in its first row and last column is where the turn takes it.
    field[:, rows[0] : rows[0] + 4, columns[1] - 4 : columns[1]] = 90
    seen = tta.show(name, inputs, field)[0, :, :, 0]
    corners = {(row, column): int(seen[row, column]) for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    turn = name.rsplit("-", 1)[1]
    # Transposed, the upper right corner comes to the lower left; turned by a quarter to the left, to the
    # upper left; to the right, to the lower right.
    wanted = {"transpose": (-1, 0), "rot90": (0, 0), "rot270": (-1, -1)}[turn]
    # Where the crop is not twice as fine, the mark's outermost pixel takes a part from beyond its border too.
    assert [corner for corner, value in corners.items() if value < 130] == [wanted], corners


def test_a_crop_of_a_half_keeps_the_fine_pixels_of_the_field() -> None:
    field = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    seen = tta.show("crop50-centre-antitranspose", np.zeros((2, 20, 20, 3), np.uint8), field)
    np.testing.assert_array_equal(seen, np.rot90(field[:, 10:30, 10:30].swapaxes(1, 2), 2, axes=(1, 2)))


@pytest.mark.parametrize(
    ("interpolation", "mode"), [("antialias", "bilinear"), ("antialias-bicubic", "bicubic")]
)
def test_a_crop_is_resized_with_the_filter_of_the_preprocessing(interpolation, mode) -> None:
    field = np.random.default_rng(0).integers(0, 255, (1, 80, 80, 3), dtype=np.uint8)
    inputs = np.zeros((1, 30, 30, 3), np.uint8)
    seen = tta.show("crop50-centre-antitranspose", inputs, field, interpolation)
    pixels = torch.from_numpy(field[:, 20:60, 20:60]).permute(0, 3, 1, 2)
    expected = functional.interpolate(pixels, (30, 30), mode=mode, antialias=True).permute(0, 2, 3, 1)
    turned = np.rot90(expected.numpy().swapaxes(1, 2), 2, axes=(1, 2))
    # The outermost pixels take a part from beyond the border of the crop.
    assert np.abs(seen.astype(int) - turned)[:, 4:-4, 4:-4].max() <= 1


def test_every_fourth_of_the_crops_is_the_whole_image() -> None:
    crops = tta.MODES["crops"]
    assert len(set(crops)) == 16
    assert [tta.is_whole(name) for name in crops] == [True, False, False, False] * 4
    assert [tta.is_crop(name) for name in crops] == [False, True, True, True] * 4


def test_the_published_rounds_are_drawn_once() -> None:
    assert len(tta.MODES["published"]) == 10
    assert tta.published_views(seed=1) == tta.published_views(seed=1) != tta.published_views(seed=2)
    # 0.5 + 0.5/4 of the rounds are not turned, a quarter of those not flipped: over 4,000 rounds 0.156.
    # Two flips and half a turn are the image again: 0.5 * 0.25 * 0.25 = 0.031 more.
    share = tta.published_views(4000, seed=3).count("identity") / 4000
    assert share == pytest.approx(0.1875, abs=0.02)


ROOT = Path(__file__).resolve().parents[2]


class Corner:
    """A runtime whose logit of class 0 is the brightness of the top left pixel,
    of class 1 that of the top right.
    """

    name = "corner"

    def __init__(self) -> None:
        self.images = 0

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        found = np.zeros((len(images), 7), np.float32)
        found[:, 0], found[:, 1] = images[:, 0, 0, 0] / 64, images[:, 0, -1, 0] / 64
        return found

    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.outputs(images)[:2]

    def outputs(self, images: np.ndarray) -> Outputs:
        return Outputs(
            self.logits(images),
            images[:, None, :, :, 0].astype(np.float32),
            images[..., 1].astype(np.float32),
        )


def _engine(views: tuple[str, ...], stopping: StoppingRule | None = None) -> tuple[Engine, Corner]:
    runtime = Corner()
    member = EngineMember("corner", 1.0, Preprocessing(input_size_px=16), runtime, np.zeros((7, 1)))
    weights = np.array([1.0])
    return Engine([member], weights, views, lambda image, _: image, stopping=stopping), runtime


def _image(top_left: int, top_right: int, bottom_left: int, bottom_right: int) -> np.ndarray:
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, 0], image[0, -1], image[-1, 0], image[-1, -1] = top_left, top_right, bottom_left, bottom_right
    return image


def test_the_engine_averages_the_softmax_of_the_views() -> None:
    engine, _ = _engine(("identity", "hflip"))
    found = engine.run([_image(128, 0, 0, 0)])
    # Softmax of (2, 0, 0, ...) is e²/(e²+6) = 0.5518729 for the 2 and 0.0746879 for each 0.
    high, low = 0.5518729, 0.0746879
    expected = [(high + low) / 2, (high + low) / 2, low, low, low, low, low]
    np.testing.assert_allclose(found.probabilities, [expected], atol=1e-6)
    assert found.forward_passes.tolist() == [2]


def test_the_engine_cuts_crops_from_the_field_and_resizes_the_field_for_whole_views() -> None:
    """Images of 64 pixels, a field of 40, an input of 20: one resize to 40, then a crop of its own pixels."""
    seen: list[np.ndarray] = []

    class Recorder(Corner):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            seen.append(pixels)
            return super().logits(pixels)

    preprocessing = Preprocessing(input_size_px=20, field_px=40)
    member = EngineMember("corner", 1.0, preprocessing, Recorder(), np.zeros((7, 1)))
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Engine([member], np.ones(1), ("identity", "crop50-centre-transpose"), to_input).run([image])
    field = resize_square(image, 40)
    np.testing.assert_array_equal(seen[0][0], resize_square(field, 20))
    np.testing.assert_array_equal(seen[1][0], field[10:30, 10:30].swapaxes(0, 1))


def test_a_view_drawn_twice_counts_twice_and_runs_once() -> None:
    engine, runtime = _engine(("identity", "hflip", "identity"))
    found = engine.run([_image(128, 0, 0, 0)])
    high, low = 0.5518729, 0.0746879
    assert found.probabilities[0, 0] == pytest.approx((2 * high + low) / 3, abs=1e-6)
    assert runtime.images == 2


def test_converged_images_are_not_run_again() -> None:
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=2.0, n_views=8)
    engine, runtime = _engine(tta.MODES["d4"], stopping)
    sure, unsure = _image(250, 0, 250, 0), _image(66, 64, 66, 64)
    found = engine.run([sure, unsure])
    # sure: logits 250/64 = 3.906 and 0, so 3.906 ahead in log odds; 2 * sqrt(1 - 1/8) = 1.871 is asked for.
    # unsure: (66 - 64) / 64 = 0.031 ahead.
    assert found.forward_passes.tolist() == [1, 8]
    assert runtime.images == 1 + 8
    alone = engine.run([sure])
    np.testing.assert_array_equal(alone.probabilities[0], found.probabilities[0])


def test_metadata_stays_with_its_image_while_others_stop() -> None:
    seen: list[list[float]] = []

    class Takes(Corner):
        def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
            assert metadata is not None
            seen.append([round(100 * float(years)) for years in metadata[:, 1]])
            return super().logits(images)

    member = EngineMember("corner", 1.0, Preprocessing(input_size_px=16), Takes(), np.zeros((7, 1)), ("age",))
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=2.0, n_views=8)
    engine = Engine([member], np.ones(1), tta.MODES["d4"], lambda image, _: image, stopping=stopping)
    patients = [PatientMetadata(age_years=10.0), PatientMetadata(age_years=20.0)]
    # As above, the first image stops after one forward pass.
    engine.run([_image(250, 0, 250, 0), _image(66, 64, 66, 64)], patients=patients)
    assert seen == [[10, 20], *[[20]] * 7]
    assert engine.metadata_fields == ("age",)


def test_features_come_from_the_unturned_view() -> None:
    engine, _ = _engine(("hflip", "vflip"))
    image = _image(1, 2, 3, 4)
    found = engine.run([image], keep_layers=True)
    np.testing.assert_array_equal(found.layers[0].features[0, 0], image[..., 0])


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        softmax(np.array([[np.nan, 0, 0, 0, 0, 0, 0]]))


def test_the_engine_stops_where_the_fit_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stopped_means`, on which the rule is fitted, is what the engine does."""
    generator = np.random.default_rng(5)
    images = [_image(*generator.integers(0, 256, 4)) for _ in range(60)]
    by_view = np.stack([_engine((view,))[0].run(images).probabilities for view in tta.MODES["d4"]], axis=1)
    stopping = StoppingRule(DecisionRule(ISIC2018, thresholds={"MEL": 0.3}), margin_factor=2.0, n_views=8)
    means, views = stopped_means(stopping, by_view[:, None])
    found = _engine(tta.MODES["d4"], stopping)[0].run(images)
    assert 1.0 < views.mean() < 8.0
    np.testing.assert_array_equal(found.forward_passes, views)
    np.testing.assert_allclose(found.probabilities, means, atol=2e-7)


def test_the_runtimes_agree_and_neighbours_do_not_matter(tiny_workspace) -> None:
    pytest.importorskip("onnxruntime")
    from skinlesion_cli.artifacts.bundle import Bundle
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.inference.loading import load_engine

    bundle = Bundle.load(Workspace(tiny_workspace))
    images = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8) for seed in range(6)]
    found = {
        runtime: load_engine(bundle, "cpu", runtime).run(images, keep_layers=True)
        for runtime in ("torch", "onnx")
    }
    np.testing.assert_allclose(found["torch"].probabilities, found["onnx"].probabilities, atol=1e-5, rtol=0)
    for one, other in zip(found["torch"].layers, found["onnx"].layers, strict=True):
        assert one.detail.shape == (6, 2, 2)
        np.testing.assert_allclose(one.features, other.features, atol=1e-4)
        np.testing.assert_allclose(one.detail, other.detail, atol=1e-4)
    alone = load_engine(bundle, "cpu", "onnx").run(images[2:3])
    np.testing.assert_array_equal(alone.probabilities[0], found["onnx"].probabilities[2])


def test_onnxruntime_predicts_without_torch(skinlesion, tiny_workspace, images, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('torch is not to be imported')")
    (tmp_path / "timm.py").write_text("raise ImportError('timm is not to be imported')")
    done = skinlesion(
        "predict",
        images,
        "-o",
        tmp_path / "o.csv",
        "-w",
        tiny_workspace,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )
    assert done.returncode == 0, done.stderr
    assert "runtime: onnx" in done.stderr


def test_torch_runs_the_copy_for_inference_and_keeps_the_network() -> None:
    import torch

    from skinlesion_cli.inference.runtimes.torch import TorchRuntime

    class Scaled(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def for_inference(self):
            return Scaled(10.0 * self.factor)

        def features(self, pixels):
            return pixels.permute(0, 3, 1, 2).float()

        def logits(self, features):
            return self.factor * features.mean((2, 3)).repeat(1, 3)[:, :7]

    network = Scaled(2.0)
    runtime = TorchRuntime(network)
    assert runtime.logits(np.full((1, 4, 4, 3), 3, np.uint8)).tolist() == [[60.0] * 7]
    assert runtime.network is network


def test_out_of_memory_halves_the_batch_and_says_so() -> None:
    torch = pytest.importorskip("torch")
    from skinlesion_cli.errors import SkinLesionError
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime

    class Small(torch.nn.Module):
        """Has room for `room` images."""

        def __init__(self, room: int) -> None:
            super().__init__()
            self.room, self.sizes = room, []

        def for_inference(self):
            return self

        def features(self, pixels):
            self.sizes.append(len(pixels))
            if len(pixels) > self.room:
                raise torch.OutOfMemoryError("no memory")
            return pixels.permute(0, 3, 1, 2).float()

        def logits(self, features):
            return features.mean((2, 3)).repeat(1, 3)[:, :7]

    images = np.arange(7, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    network = Small(3)
    with pytest.warns(UserWarning, match="3 images at once"):
        found = TorchRuntime(network).logits(images)
    assert network.sizes == [7, 3, 3, 1]
    np.testing.assert_array_equal(found[:, 0], np.arange(7))
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(SkinLesionError, match="one image does not fit"),
    ):
        TorchRuntime(Small(0)).logits(images)


def test_an_export_that_says_something_else_is_refused(tiny_workspace, tmp_path, monkeypatch) -> None:
    pytest.importorskip("onnxscript")
    import shutil

    from skinlesion_cli.artifacts import exports
    from skinlesion_cli.artifacts.checkpoint import Checkpoint
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.errors import ArtifactError, UsageError
    from skinlesion_cli.inference import exporting
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages import export

    shutil.copytree(tiny_workspace, tmp_path / "ws")
    workspace = Workspace(tmp_path / "ws")
    first, second = (Checkpoint.load(workspace.checkpoint(name)) for name in workspace.trained())
    other = exports.Export.load_for(second, "onnx")
    exports.path_of(first, "onnx").unlink()
    # The graphs of both are the same: what differs is what they take from the weights.
    graph = exports.Export.of_graph(second, other.model, list(other.weights), other.classifier_name, {})
    monkeypatch.setattr(exporting, "_unmeasured", lambda *_: graph)
    with pytest.raises(ArtifactError, match="a probability differs by"):
        export.run(export.ExportSettings(workspace=workspace.root, members=(first.name,)), SilentReporter())
    assert not exports.is_there(first, "onnx")
    # An export of another network in the place of this one.
    for file in exports.path_of(second, "onnx").parent.glob("onnx*"):
        shutil.copyfile(file, exports.path_of(first, "onnx").with_name(file.name))
    assert not exports.is_there(first, "onnx")
    with pytest.raises(ArtifactError, match="was made from checkpoint"):
        exports.Export.load_for(first, "onnx")
    with pytest.raises(UsageError, match="what it loses has to be measured"):
        export.run(export.ExportSettings(workspace=workspace.root, format="onnx-int8"), SilentReporter())


def test_a_loss_of_balanced_accuracy_is_refused() -> None:
    from skinlesion_cli.errors import ArtifactError
    from skinlesion_cli.inference.exporting import accept

    figures = {"largest_difference": 0.2, "bacc_torch": 0.80, "bacc_export": 0.78, "images": 500}
    accept("net", "onnx-int8", figures, 0.03)
    with pytest.raises(ArtifactError, match=r"0\.7800 instead of 0\.8000"):
        accept("net", "onnx-int8", figures, 0.01)


def _two_groups(stopping: StoppingRule | None) -> Engine:
    """Three members, of which the last two are one member group."""
    runtimes = [Corner(), Corner(), Corner()]
    members = [
        EngineMember(f"corner{index}", weight, Preprocessing(input_size_px=16), runtime, np.zeros((7, 1)))
        for index, (weight, runtime) in enumerate(zip((0.5, 0.25, 0.25), runtimes, strict=True))
    ]
    weights = np.array([0.5, 0.25, 0.25])
    return Engine(
        members,
        weights,
        tta.MODES["d4"],
        lambda image, _: image,
        stopping=stopping,
        member_groups=[[0], [1, 2]],
    )


def test_looks_pass_through_the_networks_of_one_voice_at_a_time() -> None:
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=1.0, n_views=8, weights=(0.5, 0.5))
    engine = _two_groups(stopping)
    sure, unsure = _image(250, 0, 250, 0), _image(64, 64, 64, 64)
    found = engine.run([sure, unsure])
    # The first look is member 0 alone; looking at everything takes 8 views of all three members.
    assert found.forward_passes.tolist() == [1, 24]
    everything = _two_groups(None).run([unsure])
    assert everything.forward_passes.tolist() == [24]
    np.testing.assert_allclose(found.probabilities[1], everything.probabilities[0], atol=1e-7)


def test_maps_cost_no_second_forward_pass_and_change_nothing() -> None:
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=1.0, n_views=8, weights=(0.5, 0.5))
    images = [_image(250, 0, 250, 0), _image(66, 64, 66, 64)]
    plain, mapped = _two_groups(stopping), _two_groups(stopping)
    found, with_maps = plain.run(images), mapped.run(images, keep_layers=True)
    np.testing.assert_array_equal(found.probabilities, with_maps.probabilities)
    assert [layers.features.shape for layers in with_maps.layers] == [(2, 1, 16, 16)] * 3
    # Each member has seen both images unturned, for the maps; the looks at that view took them from there.
    assert mapped.members[0].runtime.images == plain.members[0].runtime.images
    assert mapped.members[1].runtime.images == plain.members[1].runtime.images + 1


def test_a_rule_for_other_member_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="2 member groups, but a stopping rule for 3"):
        _two_groups(
            StoppingRule(DecisionRule(ISIC2018), margin_factor=1.0, n_views=8, weights=(0.4, 0.3, 0.3))
        )


def test_a_gpu_computes_in_float32_as_a_cpu_does(monkeypatch):
    from skinlesion_cli.inference.runtimes.torch import _compute_in_float32

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    _compute_in_float32(torch.device("cpu"))
    assert torch.backends.cudnn.allow_tf32
    _compute_in_float32(torch.device("cuda"))
    assert not torch.backends.cudnn.allow_tf32
