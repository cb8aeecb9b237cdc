"""The explain stage on a small ensemble with random weights."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ExitCode, UsageError
from skinlesion_cli.explain.member_maps import member_maps
from skinlesion_cli.explain.overlay import enlarged
from skinlesion_cli.inference.loading import load_engine
from skinlesion_cli.inference.tta import MODES
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.explain import check as explain_check
from skinlesion_cli.stages.explain import stage as explain
from skinlesion_cli.stages.explain.stage import ExplainSettings
from skinlesion_cli.stages.predict import stage as predict
from skinlesion_cli.stages.predict.settings import PredictSettings
from tests.support.tiny_models import make_images, make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("tiny"), size_px=64)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), 5)


def explained(workspace: Path, images: Path, output: Path, **choices) -> tuple[list[dict], object]:
    result = explain.run(
        ExplainSettings(workspace=workspace, inputs=[str(images)], output=output, **choices), SilentReporter()
    )
    with (output / "maps.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), result


def test_one_overlay_an_image(workspace: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.jpg").write_text("no image")
    rows, result = explained(workspace, images, tmp_path)
    (images / "broken.jpg").unlink()
    assert [row["id"] for row in rows] == [
        *(f"a/image {k:03d}.jpg" for k in (0, 2, 4)),
        *(f"b/image {k:03d}.jpg" for k in (1, 3)),
    ]
    assert all(row["class"] == row["decision"] for row in rows)
    assert all(Image.open(tmp_path / row["overlay"]).size[0] == 2 * 533 for row in rows)
    assert result.exit_code is ExitCode.PARTIAL
    assert "broken.jpg (not_an_image" in result.warnings[0]


def test_zero_maps_are_named(images: Path, tmp_path: Path) -> None:
    # One network and maps of a single place: for about half the classes nothing speaks.
    single = make_workspace(tmp_path / "single", archs=("tiny",), size_px=32)
    rows, result = explained(single, images, tmp_path / "out", classes=("all",))
    assert len(rows) == 35
    zero = [row for row in rows if row["all_zero"] == "true"]
    assert zero, "random networks have classes for which nothing speaks; choose other seeds"
    assert all(float(row["magnitude"]) == 0 for row in zero)
    assert f"{len(zero)} maps are all zero" in result.warnings[0]


def test_maps_over_all_views_turn_with_the_image(workspace: Path, tmp_path: Path) -> None:
    # Averaged over the 8 views of the square, the map of a turned image is the turned map: only if every
    # view's map was turned back the right way.
    rng = np.random.default_rng(3)
    image = np.asarray(
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
            (64, 64), Image.Resampling.BICUBIC
        )
    )
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(image).save(folder / "a.png")
    Image.fromarray(np.rot90(image).copy()).save(folder / "b.png")
    maps = {}
    for tta in (True, False):
        rows, _ = explained(workspace, folder, tmp_path / str(tta), classes=("all",), raw="npz", cam_tta=tta)
        maps[tta] = {
            (row["id"], row["class"]): np.load(tmp_path / str(tta) / row["raw"])["map"] for row in rows
        }
    for name in ("MEL", "NV", "BKL"):
        np.testing.assert_allclose(
            maps[True]["b.png", name], np.rot90(maps[True]["a.png", name]), rtol=1e-4, atol=1e-6
        )
    worst = max(
        np.abs(maps[False]["b.png", n] - np.rot90(maps[False]["a.png", n])).max()
        for n in ("MEL", "NV", "BKL")
    )
    assert worst > 1e-4, "the network sees no difference between views, so the test proves nothing"


def test_maps_are_of_the_views_that_show_the_whole_image(workspace: Path) -> None:
    engine = load_engine(Bundle.load(Workspace(workspace)), "cpu", "torch")
    pixels = np.random.default_rng(5).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    both = [
        member_maps(engine.to_input, engine.members[0], list(pixels), np.array([0, 1]), "gradcam", views)
        for views in (MODES["zoom"], ("identity", "rot180", "hflip", "vflip"))
    ]
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_library_grad_cam_is_the_same_over_the_ensemble(
    workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, _ = explained(workspace, images, tmp_path / "fast", method="gradcam")
    # Sends Grad-CAM itself the way of the other methods.
    monkeypatch.setattr(explain, "is_closed", lambda name: False)
    monkeypatch.setattr("skinlesion_cli.explain.member_maps.is_closed", lambda name: False)
    slow, _ = explained(workspace, images, tmp_path / "slow", method="gradcam")
    for one, other in zip(fast, slow, strict=True):
        assert float(one["magnitude"]) == pytest.approx(float(other["magnitude"]), rel=1e-4, abs=1e-6)


def test_styles_of_predicted_overlays(workspace: Path, images: Path, tmp_path: Path) -> None:
    name = images / "a" / "image 000.jpg"
    original, drawn = enlarged(np.asarray(Image.open(name))), {}
    assert original.shape == (400, 533, 3)
    for style in ("overlay", "contour", "side-by-side"):
        output = tmp_path / f"{style}.csv"
        config = PredictSettings(
            workspace=workspace,
            inputs=[str(name)],
            output=output,
            cam=True,
            cam_style=style,
            runtime="torch",
            device="cpu",
        )
        predict.run(config, SilentReporter())
        (overlay,) = (tmp_path / f"{style}-cam").rglob("*.png")
        drawn[style] = np.asarray(Image.open(overlay))
    assert {style: picture.shape[1] for style, picture in drawn.items()} == {
        "overlay": 533, "contour": 533, "side-by-side": 1066,
    }  # fmt: skip
    assert all(picture.shape[0] > 400 for picture in drawn.values())  # the caption is below
    left, right = drawn["side-by-side"][:400, :533], drawn["side-by-side"][:400, 533:]
    np.testing.assert_array_equal(left, original)
    np.testing.assert_array_equal(right, drawn["overlay"][:400])
    changed = {style: (drawn[style][:400] != original).any(axis=2).mean() for style in ("overlay", "contour")}
    # Lines change few pixels; colours all places where the map is not zero.
    assert 0 < changed["contour"] < 0.2 < changed["overlay"]
    with pytest.raises(UsageError, match="there is no 'fancy'"):
        predict.run(
            PredictSettings(
                workspace=workspace,
                inputs=[str(name)],
                output=tmp_path / "x.csv",
                cam=True,
                cam_style="fancy",
            ),
            SilentReporter(),
        )


def test_wrong_choices_are_refused(workspace: Path, images: Path, tmp_path: Path) -> None:
    for choices, message in (
        ({"classes": ("MELANOMA",)}, "there is no 'MELANOMA'"),
        ({"style": "fancy"}, "there is no 'fancy'"),
        ({"raw": "tiff"}, "there is no 'tiff'"),
        ({"method": "nocam"}, "there is no 'nocam'"),
    ):
        with pytest.raises(UsageError, match=message):
            explain.run(
                ExplainSettings(workspace=workspace, inputs=[str(images)], output=tmp_path, **choices),
                SilentReporter(),
            )


class Counting(SilentReporter):
    """Keeps the totals and the steps of each task."""

    def __init__(self) -> None:
        self.totals: dict[str, float | None] = {}
        self.steps: dict[str, float] = {}

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Counting]:
        self.current = description
        self.totals[description], self.steps[description] = total, 0
        yield self

    def advance(self, steps: float = 1) -> None:
        self.steps[self.current] += steps

    skip = advance

    def describe(self, text: str) -> None:
        pass


def test_check_gives_both_tests_with_support(workspace: Path, images: Path) -> None:
    progress = Counting()
    result = explain_check.run(
        explain_check.CheckSettings(workspace=workspace, inputs=[str(images)], n_images=3), progress
    )
    figures = result.figures
    assert figures["images"] == 3
    shuffled = [row["shuffled"] for row in figures["parameter_randomisation"]]
    assert shuffled[0] == "classifier"
    assert shuffled[-1] == "conv_stem"
    assert len(shuffled) == 2 * len(set(shuffled))  # two members
    areas = figures["deletion_insertion"]
    assert set(areas) == {"map", "random places", "centre of the image"}
    assert all(0 <= areas[name][kind]["mean"] <= 1 for name in areas for kind in ("deletion", "insertion"))
    assert len(result.figures["verdicts"]) >= 3
    assert figures["erasure"]["finding"] == "too few to say"
    assert figures["erasure"]["n_images"] == 3
    assert figures["conclusion"] in result.headline
    # Two members; each step counts up to what it announced.
    assert progress.steps == {
        "predicting": 3,
        "mapping": 2 * 3,
        "mapping shuffled networks": 3 * len(shuffled),
        "erasing": 3,
    }
    assert progress.totals == progress.steps | {"predicting": None}
