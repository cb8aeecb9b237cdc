"""Near duplicates: found in every orientation, and look-alikes left alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.data.near_duplicates import Pair, find_pairs, merged_lesions, pairs_of
from skinlesion_cli.data.spectrum import spectrum
from skinlesion_cli.progress import SilentReporter
from tests.support.scenes import altered, scene


def pairs(images: dict[str, Image.Image]) -> list[Pair]:
    return pairs_of(list(images), np.stack([spectrum(np.asarray(image)) for image in images.values()]))


@pytest.mark.parametrize("turn", [None, *Image.Transpose])
def test_a_re_encoded_photograph_is_found_in_every_orientation(turn):
    copy = altered(scene(1))
    images = {"a": scene(1), "b": scene(2), "c": copy.transpose(turn) if turn is not None else copy}
    found = pairs(images)
    assert [(pair.first, pair.second) for pair in found] == [("a", "c")]
    assert found[0].correlation > 0.97


def test_look_alikes_are_no_duplicates():
    images = {str(seed): scene(seed) for seed in range(30)}
    low = np.stack([np.asarray(image.resize((32, 32)), dtype=float).ravel() for image in images.values()])
    assert np.corrcoef(low)[np.triu_indices(30, 1)].min() > 0.85  # plain correlation would accuse them all
    assert pairs(images) == []


def test_images_of_one_colour_are_no_duplicates():
    assert pairs({name: Image.new("RGB", (64, 64), (9, 9, 9)) for name in "ab"}) == []


def test_files_are_read_and_pairs_sorted(tmp_path):
    scene(1).save(tmp_path / "x.png")
    scene(1).save(tmp_path / "y.png")
    altered(scene(1)).save(tmp_path / "z.png")
    found = find_pairs([("z", "z.png"), ("y", "y.png"), ("x", "x.png")], tmp_path, SilentReporter())
    assert (found[0].first, found[0].second) == ("x", "y")
    assert len(found) == 3
    assert found[0].correlation == pytest.approx(1.0, abs=1e-5)


def test_lesions_of_duplicates_are_merged_along_chains():
    lesion_of = {"a": "L3", "b": "L2", "c": "L1", "d": "L4", "e": "L2"}
    found = [Pair("a", "b", 0, 1.0), Pair("b", "c", 0, 1.0)]
    assert merged_lesions(lesion_of, found) == {"a": "L1", "b": "L1", "c": "L1", "d": "L4", "e": "L1"}
