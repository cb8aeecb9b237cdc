"""Augmentation: the published levels and transforms, and what the default one must not do."""

from __future__ import annotations

import albumentations as A
import numpy as np
import pytest

from skinlesion_cli.data.training.augmentation import _published, make_augmentation, published_levels

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def counts(*values):
    return dict(zip(CLASSES, values, strict=True))


def test_levels_on_the_official_training_set():
    # 6705 / count: 6.02, 1, 13.04, 20.5, 6.1, 58.3, 47.2
    assert published_levels(counts(1113, 6705, 514, 327, 1099, 115, 142)) == counts(2, 0, 2, 3, 2, 3, 3)


def test_levels_at_their_boundaries_and_the_floor_of_melanoma():
    # Ratios 1, 1, 2, just under 6, 6, 15, just under 2; melanoma is lifted from 0 to 2.
    assert published_levels(counts(600, 600, 300, 101, 100, 40, 301)) == counts(2, 0, 1, 1, 2, 3, 0)


def described(level):
    return [(type(t).__name__, t.p) for t in _published(level, 224)]


def test_published_transforms_in_their_order_and_probability():
    assert described(0) == [("Resize", 1)]
    assert described(1) == [("Resize", 1), ("HorizontalFlip", 0.5), ("VerticalFlip", 0.5), ("Rotate", 0.6)]
    assert described(2) == [
        ("Resize", 1),
        ("HorizontalFlip", 0.5),
        ("VerticalFlip", 0.5),
        ("Rotate", 0.7),
        ("Affine", 0.4),
    ]
    assert described(3) == [
        ("Resize", 1),
        ("Affine", 0.5),
        ("HorizontalFlip", 0.5),
        ("VerticalFlip", 0.5),
        ("Rotate", 0.7),
        ("GaussNoise", 0.3),
        ("MotionBlur", 0.2),
        ("MedianBlur", 0.1),
        ("ImageCompression", 0.3),
    ]


def test_published_parameters():
    by_name = {(level, type(t).__name__): t for level in (0, 1, 2, 3) for t in _published(level, 224)}
    assert (by_name[0, "Resize"].height, by_name[0, "Resize"].width) == (224, 224)
    assert [by_name[level, "Rotate"].limit for level in (1, 2, 3)] == [(-30, 30), (-90, 90), (-180, 180)]
    medium, heavy = by_name[2, "Affine"], by_name[3, "Affine"]
    assert medium.translate_percent == {"x": (0.05, 0.05), "y": (0.05, 0.05)}
    assert heavy.translate_percent == {"x": (0.1, 0.1), "y": (0.1, 0.1)}
    assert medium.scale == heavy.scale == {"x": (0.9, 1.1), "y": (0.9, 1.1)}
    assert medium.rotate == (0, 0)
    assert heavy.rotate == (-20, 20)
    assert by_name[3, "GaussNoise"].std_range == (0.02, 0.10)
    assert by_name[3, "MotionBlur"].blur_limit == (3, 3)
    assert by_name[3, "MedianBlur"].blur_limit == (3, 3)
    assert by_name[3, "ImageCompression"].quality_range == (75, 100)


def test_published_augmentation_goes_by_the_class():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    augment = make_augmentation("published", 40, counts(1113, 6705, 514, 327, 1099, 115, 142))
    assert all(np.array_equal(augment(image, CLASSES.index("NV"), seed), image) for seed in range(10))
    changed = [not np.array_equal(augment(image, CLASSES.index("DF"), seed), image) for seed in range(10)]
    assert sum(changed) >= 9


def test_transforms_are_drawn_independently_of_each_other():
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    # BCC is at level 1 here; over many seeds all four combinations of the flips occur without rotation.
    augment = make_augmentation("published", 16, counts(600, 600, 300, 600, 600, 600, 600))
    views = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    results = [augment(image, CLASSES.index("BCC"), seed) for seed in range(300)]
    seen = [sum(np.array_equal(result, view) for result in results) for view in views]
    # Each has the probability 0.5 * 0.5 * 0.4: 30 of 300.
    assert all(15 <= n <= 50 for n in seen)


@pytest.mark.parametrize("kind", ["default", "published", "none"])
def test_a_seed_gives_one_result_of_the_size_asked_for(kind):
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    augment = make_augmentation(kind, 24, counts(1, 60, 2, 2, 2, 2, 2))
    results = [augment(image, 0, 5) for _ in range(3)]
    assert results[0].shape == (24, 24, 3)
    assert results[0].dtype == np.uint8
    assert all(np.array_equal(results[0], other) for other in results)


def test_default_augmentation_draws_sharpness_at_random_whatever_the_source():
    """Edges of sharp and of blurred sources overlap after augmentation; before it they do not."""
    generator = np.random.default_rng(0)
    sharp = generator.integers(0, 255, (160, 160, 3), dtype=np.uint8)
    augment = make_augmentation("default", 128, counts(*[10] * 7))

    def edges(image):
        return float(np.abs(np.diff(image.astype(float), axis=0)).mean())

    found = [edges(augment(sharp, 0, seed)) for seed in range(60)]
    # Of the same source, the softest result has less than half the edges of the sharpest.
    assert min(found) < 0.5 * max(found)


def test_a_keyword_that_albumentations_does_not_know_is_an_error_here():
    with pytest.raises(UserWarning, match="not valid for transform"):
        A.HorizontalFlip(probability=0.5)
