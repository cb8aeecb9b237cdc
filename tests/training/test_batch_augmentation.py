"""Augmentation of whole batches: what single changes do to pixels, and that batches can be repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from skinlesion_cli.data.training import batch_augmentation
from skinlesion_cli.data.training.batch_augmentation import GROUPS, BatchAugmentation, draw_uniforms
from skinlesion_cli.data.training.loader import (
    DeviceImages,
    EpochPlan,
    TrainingImages,
    batches,
    device_batches,
)
from skinlesion_cli.data.training.sampling import draw_weights

CPU = torch.device("cpu")
# Neither turned nor mirrored nor sheared, every optional change off, every amount neutral.
NEUTRAL = {
    "turn": 0.0,
    "mirror": 0.9,
    "angle_on": 0.9,
    "shear_x": 0.5,
    "shear_y": 0.5,
    "jitter_on": 0.95,
    "cast_on": 0.9,
    "grey_on": 0.9,
    "sharp_on": 0.9,
    "erase_on": 0.9,
    **{f"{kind}_on": 0.9 for kind in ("sticker", "ink", "ruler", "hair", "corners")},
}
# Changes nothing when the jitter is on: 0.8 + 0.4 u, 0.75 + 0.55 u, 0.75 + 0.5 u and -0.12 + 0.24 u.
NEUTRAL_JITTER = {"brightness": 0.5, "contrast": 0.25 / 0.55, "saturation": 0.5, "hue": 0.5}


def uniforms(n: int = 1, **values: float) -> np.ndarray:
    table = np.full((n, batch_augmentation.N_UNIFORMS), 0.5, dtype=np.float32)
    for name, value in (NEUTRAL | values).items():
        table[:, batch_augmentation._SLOTS[name]] = value
    return table


def augmented(image: np.ndarray, omits=("scale",), **values: float) -> np.ndarray:
    augment = BatchAugmentation(image.shape[0], CPU, omits)
    return augment(torch.from_numpy(image[None]), uniforms(**values), 0)[0].numpy()


def test_unchanged_but_for_the_two_samples_per_pixel():
    image = np.zeros((9, 9, 3), dtype=np.uint8)
    image[4, 4] = 255
    # Samples a quarter of a pixel from the centre on either side weigh it with 3/4 along each axis, and each
    # neighbour with 1/8: 255 * 9/16 = 143.4 and 255 * 3/32 = 23.9.
    result = augmented(image)
    assert result[4, 4].tolist() == [143] * 3
    assert result[4, 5].tolist() == result[3, 4].tolist() == [24] * 3
    assert result[0, 0].tolist() == [0] * 3


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, (2, 8)),
        ({"mirror": 0.1}, (2, 12)),
        # Sampled at a place turned by 90 degrees: what was in the column is in the row.
        ({"turn": 0.3}, (12, 2)),
        ({"turn": 0.6}, (18, 12)),
    ],
)
def test_turns_and_mirrors(values, place):
    image = np.zeros((21, 21, 3), dtype=np.uint8)
    image[2, 8] = 255
    result = augmented(image, **values)
    assert np.unravel_index(result[..., 0].argmax(), (21, 21)) == place


def test_scales_from_a_fifth_of_the_area_to_a_wider_field():
    y, x = np.mgrid[0:100, 0:100]
    image = np.repeat((((x - 49.5) ** 2 + (y - 49.5) ** 2) < 20**2)[..., None] * np.uint8(200), 3, axis=2)
    neutral = {"ratio": 0.5, "x": 0.5, "y": 0.5}
    areas = [
        (augmented(image, (), mode=mode, area=area, **neutral)[..., 0] > 100).sum()
        for mode, area in ((0.0, 0.0), (0.0, 1.0), (0.9, 0.0), (0.9, 1.0))
    ]
    # pi * 20**2 = 1257 pixels; a fifth of the field shows it five times as large, a field of 1.6 sides
    # 2.56 times as small; around it mirrored copies would begin 50 pixels away, outside the field.
    assert areas == [pytest.approx(value, rel=0.03) for value in (6283, 1257, 1257, 491)]


@pytest.mark.parametrize(
    ("values", "colour"),
    [
        ({}, (100, 120, 140)),
        ({"jitter_on": 0.0, "brightness": 1.0}, (120, 144, 168)),
        # Saturation 0.75 moves each channel a quarter of the way to luma: 0.299, 0.587 and 0.114 of the
        # channels are 116.3.
        ({"jitter_on": 0.0, "saturation": 0.0}, (104, 119, 134)),
        ({"grey_on": 0.0}, (116, 116, 116)),
        # White balance: red times 0.9, green times 1.1.
        ({"cast_on": 0.0, "red": 0.0, "green": 1.0}, (90, 132, 140)),
        # Gamma exp(0.25) = 1.284: (100 / 255) ** 1.284 * 255 = 76.6.
        ({"cast_on": 0.0, "gamma": 1.0}, (77, 97, 118)),
    ],
)
def test_colours(values, colour):
    image = np.empty((8, 8, 3), dtype=np.uint8)
    image[:] = (100, 120, 140)
    assert augmented(image, **(NEUTRAL_JITTER | values))[4, 4].tolist() == list(colour)


def test_the_hue_turns_about_grey():
    image = np.empty((8, 8, 3), dtype=np.uint8)
    image[:] = (150, 100, 100)
    turned = augmented(image, **(NEUTRAL_JITTER | {"jitter_on": 0.0, "hue": 1.0}))[4, 4]
    # Luma is 114.95. Across the grey axis lie (33.33, -16.67, -16.67); turned by 0.12 they are
    # (33.09, -13.09, -20.0), and 1.72 lie along it.
    assert turned.tolist() == [150, 104, 97]


def test_sharpness_is_changed_in_both_directions_and_noise_repeats():
    image = np.full((128, 128, 3), 60, dtype=np.uint8)
    image[:, 64:] = 160

    def step(**values: float) -> int:
        line = augmented(image, sharp_on=0.0, **values)[16, :, 0].astype(int)
        return int(np.abs(np.diff(line)).max())

    plain = int(np.abs(np.diff(augmented(image)[16, :, 0].astype(int))).max())
    assert step(sharp_kind=0.0, sharp_amount=1.0) < plain < step(sharp_kind=0.7, sharp_amount=1.0)
    noisy = [augmented(image, sharp_on=0.0, sharp_kind=0.9, sharp_amount=1.0) for _ in range(2)]
    assert np.array_equal(*noisy)
    # 0.04 of 255 is 10.2.
    flat = noisy[0][10:50, 70:120].astype(float)
    assert flat.std() == pytest.approx(10.2, rel=0.15)


def test_erased_rectangles_are_a_tenth_of_the_side_around_their_centres():
    image = np.full((100, 100, 3), 200, dtype=np.uint8)
    one = {"erase_on": 0.0, "erase0_w": 1.0, "erase0_h": 1.0, "erase1_on": 0.9, "erase2_on": 0.9}
    result = augmented(image, **one)
    assert (result == 0).all(axis=2).sum() == 20 * 20
    assert result[50, 50].tolist() == [0, 0, 0]
    assert (augmented(image, ("scale", "erasing"), **one) == 200).all()


@pytest.mark.parametrize("kind", ["sticker", "ink", "ruler", "hair", "corners"])
def test_artefacts_cover_a_part_of_the_image_and_can_be_omitted(kind):
    image = np.full((64, 64, 3), 160, dtype=np.uint8)
    covered = [
        (augmented(image, **{f"{kind}_on": 0.0, f"{kind}_which": which})[..., 0] != 160).mean()
        for which in (0.05, 0.35, 0.65, 0.95)
    ]
    assert max(covered) > 0.003
    assert max(covered) < 0.7
    assert (augmented(image, ("scale", "artefacts"), **{f"{kind}_on": 0.0}) == 160).all()


def test_without_all_groups_geometry_remains():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    drawn = draw_uniforms(1, 0, 0, 8)
    same = torch.from_numpy(image).expand(8, -1, -1, -1)
    results = BatchAugmentation(12, CPU, GROUPS)(same, drawn, 0)
    assert results.shape == (8, 12, 12, 3)
    assert results.dtype == torch.uint8
    assert len({result.numpy().tobytes() for result in results}) == 8


BALANCED = draw_weights(np.arange(24) % 7, np.full(24, "one"), class_power=1.0)
PLAN = EpochPlan(seed=3, epoch=1, batch_size=6, n_draws=26, draw_weights=BALANCED, drop_last=False)


@pytest.fixture
def images() -> TrainingImages:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 20, 20, 3), dtype=np.uint8)
    metadata = np.arange(48, dtype=np.float32).reshape(24, 2)
    return TrainingImages(pixels, np.arange(24) % 5, np.arange(24) % 7, metadata, metadata_drop=0.5)


def drawn(images, plan=PLAN, workers=0, omits=()):
    return [
        tuple(t.numpy() for t in batch)
        for batch in batches(images, BatchAugmentation(16, CPU, omits), plan, workers)
    ]


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        all(np.array_equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(left, right, strict=True)
    )


def test_workers_and_interruptions_do_not_change_the_batches(images):
    alone = drawn(images)
    assert [len(labels) for _, labels, _ in alone] == [6, 6, 6, 6, 2]
    assert same(drawn(images, workers=1), alone)
    assert same(drawn(images, replace(PLAN, first_step=3)), alone[3:])
    assert not same(drawn(images, replace(PLAN, epoch=2)), alone)


def test_processes_share_a_batch(images):
    alone = drawn(images, omits=("sharpness",))
    shares = [drawn(images, replace(PLAN, rank=r, world_size=2), omits=("sharpness",)) for r in range(2)]
    joined = [
        tuple(np.concatenate(parts) for parts in zip(*halves, strict=True))
        for halves in zip(*shares, strict=True)
    ]
    assert same(joined, alone)


@pytest.mark.parametrize("fits", [True, False])
def test_batches_made_on_the_device_are_those_of_the_workers(images, monkeypatch, fits):
    """The path of a GPU with the CPU in its place: its memory is pretended."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9 if fits else 0, 10**9))
    source = DeviceImages(images, CPU)
    assert source.resident is fits
    plan = replace(PLAN, first_step=1)
    made = [
        tuple(t.numpy() for t in batch) for batch in device_batches(source, BatchAugmentation(16, CPU), plan)
    ]
    assert same(made, drawn(images, plan))


def test_what_an_earlier_training_has_left_counts_as_free_memory(images, monkeypatch):
    left = [10**9]
    monkeypatch.setattr(torch.cuda, "empty_cache", left.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9 - sum(left), 10**9))
    assert DeviceImages(images, CPU).resident


class Waiting(TorchDispatchMode):
    """Records copies to a GPU that wait until it has finished its work."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        if function is torch.ops.aten._to_copy.default and args[0].device.type != made.device.type:
            self.copies.append(bool(kwargs.get("non_blocking")))
        return made


def test_on_a_gpu_all_is_computed_there_and_nothing_waits_for_it(monkeypatch):
    """Tensors with a place and a shape and no content need no GPU. To read one raises an error, and so does
    a computation with tensors of two places.
    """
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    # Generators of a GPU need one.
    generator = type("Generator", (), {"__init__": lambda *_: None, "manual_seed": lambda *_: None})
    monkeypatch.setattr(torch, "Generator", generator)
    banks = batch_augmentation._overlays(CPU)
    drawn = draw_uniforms(1, 0, 0, 64)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        there = {kind: mode.from_tensor(bank).to(gpu) for kind, bank in banks.items()}
        monkeypatch.setitem(batch_augmentation._overlays_by_device, gpu, there)
        augment = BatchAugmentation(16, gpu)
        given = torch.empty((64, 20, 20, 3), dtype=torch.uint8, device=gpu)
        with Waiting() as waiting:
            made = augment(given, drawn, 0)
    assert (made.device, made.dtype, made.shape) == (gpu, torch.uint8, (64, 16, 16, 3))
    # The random numbers, and which images each of the five artefacts is laid over.
    assert waiting.copies == [True] * 6
