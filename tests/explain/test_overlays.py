"""Overlays, raw maps and their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from skinlesion_cli.artifacts.maps import relative_path
from skinlesion_cli.explain.overlay import Caption, blend, contours, enlarged, render, steps
from skinlesion_cli.explain.png import png
from skinlesion_cli.explain.thumbnails import thumbnail
from skinlesion_cli.explain.writer import OverlayWriter
from skinlesion_cli.inference.runtimes.base import Outputs, deviation
from skinlesion_cli.taxonomy import DISCLAIMER
from tests.support.class_lists import ISIC2018

IMAGE = np.random.default_rng(1).integers(0, 256, (420, 560, 3), dtype=np.uint8)
HEAT = np.zeros((4, 4), np.float32)
HEAT[3, 3] = 2.0
CAPTION = Caption(("MEL p 0.62, threshold 0.34",), 2.0)


def test_picture_is_the_image_at_its_size_where_nothing_speaks() -> None:
    drawn = render(IMAGE, HEAT, CAPTION)
    assert drawn.shape[1] == 560
    assert drawn.shape[0] > 420  # the caption is below, not over the image
    np.testing.assert_array_equal(drawn[:40, :40], IMAGE[:40, :40])
    assert np.abs(drawn[400:420, 530:].astype(int) - IMAGE[400:, 530:]).mean() > 20


def test_strongest_place_is_where_the_map_says() -> None:
    strength = steps(HEAT, 120, 90)
    y, x = np.unravel_index(strength.argmax(), strength.shape)
    assert (strength.max(), y >= 45, x >= 60) == (255, True, True)


def test_all_zero_map_leaves_the_image_and_says_so() -> None:
    nothing = np.zeros((2, 2), np.float32)
    drawn = render(IMAGE, nothing, Caption(("MEL",), 0.0))
    np.testing.assert_array_equal(drawn[:420], IMAGE)
    red = (drawn[420:, :, 0].astype(int) - drawn[420:, :, 1]) > 100
    assert red.any(), "the caption has no red text"
    other = render(IMAGE, HEAT, CAPTION)[420:]
    assert not ((other[..., 0].astype(int) - other[..., 1]) > 100).any()


def test_contours_change_lines_only() -> None:
    drawn = contours(IMAGE, steps(HEAT, 560, 420))
    changed = (drawn != IMAGE).any(axis=2)
    assert 0 < changed.mean() < 0.1


def test_side_by_side_has_the_untouched_image_left() -> None:
    drawn = render(IMAGE, HEAT, CAPTION, "side-by-side")
    assert drawn.shape[1] == 1120
    np.testing.assert_array_equal(drawn[:420, :560], IMAGE)
    strength = steps(HEAT, 560, 420)
    coloured = blend(IMAGE, strength)
    line = (drawn[:420, 560:] != coloured).any(axis=2)
    # A white line where the map has half of its maximum, and nothing else.
    assert 0 < line.mean() < 0.01
    assert (drawn[:420, 560:][line] == 255).all()
    assert np.abs(strength[line].astype(int) - 128).max() < 16


def test_a_small_image_is_enlarged_and_a_strip_is_not_drawn_out() -> None:
    assert enlarged(np.zeros((90, 120, 3), np.uint8)).shape == (400, 533, 3)
    assert enlarged(np.zeros((120, 90, 3), np.uint8)).shape == (533, 400, 3)
    # Ten times as long as wide: at 400 pixels it would be 8000 long.
    assert enlarged(np.zeros((100, 2000, 3), np.uint8)).shape == (200, 4000, 3)
    assert enlarged(IMAGE) is IMAGE
    assert render(np.zeros((90, 120, 3), np.uint8), HEAT, CAPTION).shape[1] == 533


@pytest.mark.parametrize("size", [(100, 100), (400, 300), (3000, 2000)])
def test_the_shortest_caption_fits_at_any_size(size: tuple[int, int]) -> None:
    # The last title is drawn whether it fits or not: white is left at the right of it.
    caption = Caption(("BCC 0.95 " + "long " * 400, "BCC 0.95"), 2.0, "logits")
    drawn = render(np.zeros((*size, 3), np.uint8), HEAT, caption)
    height = max(size[0], 400 * size[0] // min(size)) if min(size) < 400 else size[0]
    title = drawn[height + 2 : height + (drawn.shape[0] - height) // 2]
    ink = (title < 128).all(axis=2).any(axis=0).nonzero()[0]
    # Readable: the eight characters take a tenth of the width or more.
    assert drawn.shape[1] * 0.1 < np.ptp(ink) < drawn.shape[1] * 0.9


def test_png_is_read_back_as_it_was() -> None:
    from io import BytesIO

    facts = PngImagePlugin.PngInfo()
    facts.add_itxt("Disclaimer", "nicht für Diagnosen")
    for pixels in (IMAGE, IMAGE[:1, :3], np.zeros((7, 5, 3), np.uint8)):
        content = png(np.ascontiguousarray(pixels), facts)
        picture = PngImagePlugin.PngImageFile(BytesIO(content))
        picture.verify()  # the checksums of all chunks
        picture = Image.open(BytesIO(content))
        np.testing.assert_array_equal(np.asarray(picture), pixels)
        assert (picture.mode, picture.text) == ("RGB", {"Disclaimer": "nicht für Diagnosen"})
    # A picture of one colour takes next to nothing.
    assert len(png(np.full((400, 400, 3), 90, np.uint8), facts)) < 6000


def test_colours_are_viridis_and_keep_their_share() -> None:
    grey = np.full((1, 3, 3), 100, np.uint8)
    drawn = blend(grey, np.array([[0, 128, 255]], np.uint8))
    # Viridis at 128 and 255 of 255: (33, 145, 140) and (253, 231, 37). Shares 0.62 (128 / 255)^0.8 = 0.3572
    # and 0.62: 100 + 0.3572 (33 - 100), and so on.
    expected = [[100, 100, 100], [76.1, 116.1, 114.3], [194.9, 181.2, 60.9]]
    np.testing.assert_allclose(drawn[0].astype(float), expected, atol=1.5)


def test_thumbnail_has_the_image_left_and_the_map_right() -> None:
    from io import BytesIO

    flat = np.full((300, 400, 3), 128, np.uint8)
    small = np.asarray(Image.open(BytesIO(thumbnail(flat, HEAT))))
    assert small.shape == (144, 384, 3)
    assert np.abs(small[:, :180].astype(int) - 128).max() <= 3
    assert np.abs(small[120:, 360:].astype(int) - 128).max() > 40


NAMES = ["a.jpg", "a.png", "sub/a.jpg", "/a.jpg", "../a.jpg", "./a.jpg", "sub_a.jpg", "a:b.jpg", "a?b.jpg"]


def test_names_mirror_the_input_and_never_collide_or_leave() -> None:
    paths = [relative_path(name) for name in NAMES]
    assert paths[:3] == ["a.jpg.cam.png", "a.png.cam.png", "sub/a.jpg.cam.png"]
    assert len(set(paths)) == len(NAMES)
    assert relative_path("a.jpg", "MEL") == "a.jpg.cam-MEL.png"
    assert relative_path("../../x").startswith("_up/_up/x-")


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_any_name_stays_below_the_folder(one: str, other: str) -> None:
    path = relative_path(one)
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert max(len(part.encode("utf-8", "surrogateescape")) for part in path.split("/")) < 255
    assert "\0" not in path
    if one != other:
        assert path != relative_path(other)


def _layers(features: np.ndarray) -> Outputs:
    return Outputs(np.zeros((len(features), 7), np.float32), features, deviation(features))


def _written(folder: Path, **choices: object) -> list:
    writer = OverlayWriter(
        folder,
        weights=[1.0],
        classifiers=[np.eye(7, dtype=np.float32)],
        thresholds={"MEL": 0.3},
        class_list=ISIC2018,
        method="gradcam",
        model_sha256="ab" * 32,
        **choices,
    )
    features = np.zeros((2, 7, 2, 2), np.float32)
    features[0, 0] = [[0.0, 4.0], [0.0, 8.0]]
    probabilities = np.full((2, 7), 0.1, np.float32)
    return writer.write(
        ["x/a.jpg", "b.jpg"],
        [IMAGE, lambda: IMAGE[:40]],
        [_layers(features)],
        np.array([0, 1]),
        probabilities,
    )


def test_records_tell_the_magnitude_before_scaling(tmp_path: Path) -> None:
    first, second = _written(tmp_path)
    assert (first.class_name, first.magnitude, first.total, first.all_zero) == ("MEL", 2.0, 3.0, False)
    assert (second.class_name, second.magnitude, second.all_zero) == ("NV", 0.0, True)
    with Image.open(tmp_path / "x" / "a.jpg.cam.png") as picture:
        assert picture.size[0] == 560
        assert picture.text["skinlesion:magnitude"] == "2"
        assert picture.text["skinlesion:model_sha256"] == "ab" * 32
        assert picture.text["Disclaimer"] == DISCLAIMER
    assert Image.open(tmp_path / "b.jpg.cam.png").size[0] == 4000  # read by the function: 40 rows, enlarged


def test_every_class_on_request(tmp_path: Path) -> None:
    records = _written(tmp_path, classes=[0, 2])
    assert [record.overlay for record in records] == [
        "x/a.jpg.cam-MEL.png",
        "b.jpg.cam-MEL.png",
        "x/a.jpg.cam-BCC.png",
        "b.jpg.cam-BCC.png",
    ]


def test_raw_maps(tmp_path: Path) -> None:
    record = _written(tmp_path / "png", raw="png16")[0]
    values = np.asarray(Image.open(tmp_path / "png" / record.raw))
    assert (values.dtype, values.shape, values.max()) == (np.uint16, (420, 560), 65535)
    record = _written(tmp_path / "npz", raw="npz")[0]
    with np.load(tmp_path / "npz" / record.raw, allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["map"], [[0.0, 1.0], [0.0, 2.0]])
        assert stored["size_px"].tolist() == [420, 560]


def test_no_file_is_left_half_written(tmp_path: Path) -> None:
    class Gone(Exception):
        pass

    def unreadable() -> np.ndarray:
        raise Gone

    writer = OverlayWriter(
        tmp_path, weights=[1.0], classifiers=[np.eye(7, dtype=np.float32)], thresholds={}, class_list=ISIC2018
    )
    with pytest.raises(Gone):
        writer.write(
            ["a"],
            [unreadable],
            [_layers(np.ones((1, 7, 2, 2), np.float32))],
            np.array([0]),
            np.ones((1, 7)) / 7,
        )
    assert list(tmp_path.rglob("*")) == []


def test_an_image_too_large_to_draw_is_drawn_smaller(monkeypatch):
    from skinlesion_cli.explain import writer

    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 40:] = 200
    assert writer._bounded(image) is image
    monkeypatch.setattr(writer, "_MAX_DRAWN_PIXELS", 1200)
    # 4800 pixels are four times the limit: half of each side.
    drawn = writer._bounded(image)
    assert drawn.shape == (30, 40, 3)
    assert drawn[0, [0, 19, 20, 39], 0].tolist() == [0, 0, 200, 200]
