"""Which images are shown, how they are augmented, and that neither depends on the number of processes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from skinlesion_cli.data.training import loader
from skinlesion_cli.data.training.augmentation import make_augmentation
from skinlesion_cli.data.training.loader import EpochPlan, TrainingImages, batches
from skinlesion_cli.data.training.sampling import draw_weights, epoch_order, sample_seed

COUNTS = dict.fromkeys(("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"), 10)


def test_uniform_order_finishes_a_permutation_before_the_next():
    order = epoch_order(4, seed=1, epoch=0, weights=None, n_draws=10)
    assert sorted(order[:4]) == sorted(order[4:8]) == [0, 1, 2, 3]
    assert len(order) == 10
    assert len(set(order[8:])) == 2


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.5), (0.5, 0.25), (0.0, 0.1)])
def test_weighted_order_draws_a_class_in_proportion_to_count_to_the_power(power, share):
    # 900 and 100 images: 30 to 10 at power 1/2, half and half at power 1.
    labels = np.repeat([0, 1], [900, 100])
    weights = draw_weights(labels, np.full(1000, "one"), class_power=power)
    order = epoch_order(1000, seed=1, epoch=0, weights=weights, n_draws=40_000)
    assert (labels[order] == 1).mean() == pytest.approx(share, abs=0.01)


def test_an_image_is_drawn_by_its_class_and_its_source():
    # Class 0 has 4 images, class 1 has 1; source "a" has 4 images, source "b" 1.
    labels, sources = np.array([0, 0, 0, 1, 0]), np.array(["a", "a", "a", "a", "b"])
    by_source = draw_weights(labels, sources, class_power=0.0, source_power=1.0)
    assert by_source.tolist() == [0.25, 0.25, 0.25, 0.25, 1.0]
    by_both = draw_weights(labels, sources, class_power=0.5, source_power=0.5)
    assert by_both.tolist() == [0.25, 0.25, 0.25, 0.5, 0.5]
    order = epoch_order(5, seed=1, epoch=0, weights=by_source, n_draws=40_000)
    assert (order == 4).mean() == pytest.approx(0.5, abs=0.01)


def test_order_and_seeds_depend_on_seed_epoch_and_place():
    orders = [
        tuple(epoch_order(50, seed=s, epoch=e, weights=None, n_draws=50)) for s in (1, 2) for e in (0, 1)
    ]
    assert len(set(orders)) == 4
    seeds = {sample_seed(s, e, p) for s in (1, 2) for e in (0, 1) for p in range(500)}
    assert len(seeds) == 2000


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 3), dtype=np.uint8)
    # One image under 24 names: whatever differs between the batches is the augmentation's doing.
    return TrainingImages(pixels=pixels, rows=np.zeros(24, dtype=np.int64), labels=np.arange(24) % 7)


# Of the labels that `images` has: 0, 1 and 2 four times, the others three times.
BALANCED = draw_weights(np.arange(24) % 7, np.full(24, "one"), class_power=1.0)
PLAN = EpochPlan(seed=3, epoch=1, batch_size=5, n_draws=24, draw_weights=BALANCED)


def drawn(images, plan=PLAN, workers=0):
    augmentation = make_augmentation("default", 32, COUNTS)
    return [tuple(t.numpy() for t in batch) for batch in batches(images, augmentation, plan, workers)]


def same(left, right):
    return len(left) == len(right) and all(
        all(np.array_equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(left, right, strict=True)
    )


def test_any_number_of_workers_gives_the_same_batches_and_none_repeats(images):
    alone = drawn(images)
    assert [len(labels) for _, labels in alone] == [5, 5, 5, 5]
    assert alone[0][0].shape == (5, 32, 32, 3)
    assert alone[0][0].dtype == np.uint8
    for workers in (1, 3):
        assert same(drawn(images, workers=workers), alone)
    every = {image.tobytes() for pixels, _ in alone for image in pixels}
    assert len(every) == 20
    next_epoch = {image.tobytes() for pixels, _ in drawn(images, replace(PLAN, epoch=2)) for image in pixels}
    assert not every & next_epoch


def test_an_interrupted_epoch_goes_on_with_the_steps_that_are_left(images):
    assert same(drawn(images, replace(PLAN, first_step=3)), drawn(images)[3:])


def test_the_last_partial_batch_is_left_out_or_kept(images):
    assert replace(PLAN, drop_last=False).n_steps == 5
    kept = drawn(images, replace(PLAN, drop_last=False))
    assert len(kept[-1][1]) == 4
    assert same(kept[:-1], drawn(images))


@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_every_batch_between_them(images, drop_last):
    plan = replace(PLAN, batch_size=6, drop_last=drop_last, n_draws=22)
    whole = drawn(images, plan)
    shares = [drawn(images, replace(plan, rank=rank, world_size=2)) for rank in (0, 1)]
    joined = [
        tuple(np.concatenate([a, b]) for a, b in zip(x, y, strict=True)) for x, y in zip(*shares, strict=True)
    ]
    assert same(joined, whole)


@pytest.mark.parametrize(
    ("n_draws", "sizes"), [(24, [6, 6, 6, 6]), (27, [6, 6, 6, 6, 2]), (25, [6, 6, 6, 6])]
)
def test_every_process_has_the_same_share_of_a_smaller_last_batch(images, n_draws, sizes):
    plan = replace(PLAN, batch_size=6, drop_last=False, n_draws=n_draws, world_size=2)
    shares = [drawn(images, replace(plan, rank=rank)) for rank in (0, 1)]
    # One of 27 images and one of 25 have no counterpart in the other process.
    assert [[len(labels) for _, labels in share] for share in shares] == [[n // 2 for n in sizes]] * 2
    places = [plan.positions(4), replace(plan, rank=1).positions(4)]
    assert places == ([range(24, 25), range(25, 26)] if n_draws == 27 else [range(24, 24)] * 2)


def test_metadata_follows_its_image_and_is_withheld_at_random(images):
    known = np.arange(1, 25, dtype=np.float32)[:, None].repeat(2, axis=1)
    plan = replace(PLAN, draw_weights=None)
    order = epoch_order(24, seed=3, epoch=1, weights=None, n_draws=24)[:20]
    rows = drawn(replace(images, metadata=known), plan)
    assert np.array_equal(np.concatenate([row[2] for row in rows])[:, 0], order + 1)
    half = drawn(replace(images, metadata=known, metadata_drop=0.5), plan)
    values = np.concatenate([row[2] for row in half])[:, 0]
    withheld = values == 0
    assert 4 <= withheld.sum() <= 16
    assert np.array_equal(values[~withheld], (order + 1)[~withheld])
    # What is withheld is withheld from the batch, not from the table.
    assert known.min() == 1


def test_a_training_on_the_cpu_leaves_a_gpu_alone(images, monkeypatch):
    pinned = []

    def load(dataset, *, pin_memory, **_):
        pinned.append(pin_memory)
        return []

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loader, "DataLoader", load)
    # Pinning memory starts CUDA, which takes memory of the GPU.
    assert drawn(images) == []
    augmentation = make_augmentation("default", 32, COUNTS)
    assert list(batches(images, augmentation, PLAN, 0, pinned=True)) == []
    assert pinned == [False, True]


def test_workers_that_are_not_forked_get_the_name_of_the_memory_map(tmp_path, images):
    path = tmp_path / "pixels.npy"
    np.save(path, np.zeros((200, 40, 40, 3), dtype=np.uint8) + 7)
    mapped = replace(images, pixels=np.load(path, mmap_mode="r"))
    content = pickle.dumps(mapped)
    assert len(content) < 5_000
    assert np.array_equal(pickle.loads(content).pixels, mapped.pixels)
