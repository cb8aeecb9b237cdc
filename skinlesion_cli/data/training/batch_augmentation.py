"""Augmentation of whole batches with torch, on the device that trains (`augmentation: strong`).

All random numbers are uniform numbers that are drawn on the CPU from (seed, epoch, step), so a run is
repeated with the same crops, colours and artefacts on any device; only the pixel noise comes from the
device's own generator. Geometry, colour and sharpness are one pass each over the batch. Artefacts are drawn
once, by `data.training.artefacts`, into a bank of overlays that are turned, mirrored and laid over images.

Nothing is read back from a GPU: the CPU would wait until it has finished all the work that it was given, the
training step before included.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from skinlesion_cli.data.training import artefacts
from skinlesion_cli.data.training.transfer import to_device

# Groups of changes that a recipe can omit (`augmentation_omits`).
GROUPS = ("scale", "colour", "sharpness", "artefacts", "erasing")
# Uniform numbers per image; the names below say what each is used for.
_SLOTS = {
    name: index
    for index, name in enumerate(
        (
            *("mode", "area", "ratio", "x", "y", "turn", "mirror", "angle", "angle_on", "shear_x", "shear_y"),
            *("brightness", "contrast", "saturation", "hue", "gamma", "red", "green", "blue"),
            *("jitter_on", "cast_on", "grey_on", "sharp_kind", "sharp_on", "sharp_amount"),
            *(
                f"{kind}_{what}"
                for kind in ("sticker", "ink", "ruler", "hair", "corners")
                for what in ("on", "which", "turn", "mirror", "scale")
            ),
            "erase_on",
            *(f"erase{index}_{what}" for index in range(3) for what in ("on", "x", "y", "w", "h")),
        )
    )
}
N_UNIFORMS = len(_SLOTS)

# Share of the images that each artefact is laid over, and the number of different ones.
_ARTEFACTS: dict[str, tuple[artefacts.Draw, float, int]] = {
    "sticker": (artefacts.sticker, 0.05, 48),
    "ink": (artefacts.ink, 0.08, 48),
    "ruler": (artefacts.ruler, 0.12, 64),
    "hair": (artefacts.hair, 0.25, 192),
    "corners": (artefacts.dark_corners, 0.15, 64),
}
_BANK_PX = 192
_BANK_SEED = 0xA7
# Rec. 601 luma.
_LUMA = (0.299, 0.587, 0.114)


class Scale(NamedTuple):
    """How much of the field an image shows, as shares of its side or area."""

    crop_share: float = 0.65
    least_area: float = 0.2
    # Side of the field shown at most; its mirrored surroundings fill the rest.
    widest_side: float = 1.6


class BatchAugmentation:
    """Augments batches on one device; the same uniform numbers give the same pixels.

    Parameters
    ----------
    size_px : side of the squares that are returned.
    device : where the batches are.
    omits : groups of changes (`GROUPS`) that are left out. Turns, mirrors and shear always remain.
    """

    def __init__(self, size_px: int, device: torch.device, omits: Collection[str] = ()) -> None:
        self.size_px, self.device, self.omits = size_px, device, frozenset(omits)
        self._bank = {} if "artefacts" in self.omits else _overlays(device)
        self._luma = torch.tensor(_LUMA, device=device)[None, :, None, None]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(self, images: torch.Tensor, uniforms: np.ndarray, noise_seed: int) -> torch.Tensor:
        """Augmented images, uint8 (n, size_px, size_px, 3).

        Parameters
        ----------
        images : uint8 (n, height, width, 3) of any size, on the device.
        uniforms : float32 (n, N_UNIFORMS) in [0, 1); see `draw_uniforms`.
        noise_seed : seeds the pixel noise.
        """
        draws = _Draws(to_device(torch.from_numpy(uniforms), self.device))
        pixels = self._resample(images.permute(0, 3, 1, 2).float() / 255.0, draws)
        for kind, (_, share, _) in _ARTEFACTS.items():
            if kind in self._bank:
                chosen = np.flatnonzero(uniforms[:, _SLOTS[f"{kind}_on"]] < share)
                pixels = self._overlay(pixels, draws, kind, chosen)
        if "colour" not in self.omits:
            pixels = _colour(pixels, draws, self._luma)
        if "sharpness" not in self.omits:
            pixels = _sharpness(pixels, draws, noise_seed)
        if "erasing" not in self.omits:
            pixels = _erase(pixels, draws)
        return pixels.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _resample(self, pixels: torch.Tensor, draws: _Draws) -> torch.Tensor:
        """Crop or zoom out, turn, mirror, shear and resize, in one interpolation.

        Sampled at twice the size and averaged, so that shrinking is antialiased.
        """
        matrix = _field(draws, scale=None if "scale" in self.omits else Scale())
        side = 2 * self.size_px
        grid = F.affine_grid(matrix, [len(pixels), 3, side, side], align_corners=False)
        sampled = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return F.avg_pool2d(sampled, 2)

    def _overlay(self, pixels: torch.Tensor, draws: _Draws, kind: str, rows: np.ndarray) -> torch.Tensor:
        """The artefact laid over the images with these indexes, int64."""
        if not len(rows):
            return pixels
        chosen = to_device(torch.from_numpy(rows), self.device)
        bank = self._bank[kind]
        which = (draws[f"{kind}_which"][chosen] * len(bank)).long()
        turn, mirror = _right_angles(draws[f"{kind}_turn"][chosen], draws[f"{kind}_mirror"][chosen])
        # Dark corners keep their size: they are those of the whole field.
        scale = draws[f"{kind}_scale"][chosen]
        zoom = torch.ones_like(scale) if kind == "corners" else 0.7 + 0.5 * scale
        matrix = torch.zeros(len(chosen), 2, 3, device=pixels.device)
        matrix[:, :, :2] = turn * zoom[:, None, None]
        matrix[:, :, 0] *= mirror[:, None]
        side = self.size_px
        grid = F.affine_grid(matrix, [len(chosen), 4, side, side], align_corners=False)
        layer = F.grid_sample(
            bank[which].float() / 255.0, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        covered = pixels[chosen] * (1.0 - layer[:, 3:]) + layer[:, :3]
        return pixels.index_copy(0, chosen, covered)


def draw_uniforms(seed: int, epoch: int, step: int, batch_size: int) -> np.ndarray:
    """The uniform numbers of one whole batch, float32 (batch_size, N_UNIFORMS), in [0, 1)."""
    generator = np.random.default_rng([seed, epoch, step, 0xBA])
    return generator.random((batch_size, N_UNIFORMS), dtype=np.float32)


class _Draws:
    """The uniform numbers of a batch by name."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        self._columns = uniforms.unbind(1)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._columns[_SLOTS[name]]

    def between(self, name: str, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * self[name]


def _right_angles(turn: torch.Tensor, mirror: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations by 0, 90, 180 or 270 degrees, (n, 2, 2), and -1 or 1 (n,)."""
    quarter = (turn * 4).floor() * (torch.pi / 2)
    return _rotation(quarter), torch.where(mirror < 0.5, -1.0, 1.0)


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack((torch.stack((cosine, -sine), 1), torch.stack((sine, cosine), 1)), 1)


def _field(draws: _Draws, scale: Scale | None) -> torch.Tensor:
    """Affine matrices, (n, 2, 3), from places of the output to places of the image, both in [-1, 1]."""
    if scale is None:
        width = height = torch.ones_like(draws["area"])
        x = y = torch.zeros_like(width)
    else:
        area = draws.between("area", scale.least_area, 1.0)
        ratio = torch.exp(draws.between("ratio", float(np.log(3 / 4)), float(np.log(4 / 3))))
        crop_width, crop_height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        wide = draws.between("area", 1.0, scale.widest_side)
        cropped = draws["mode"] < scale.crop_share
        width = torch.where(cropped, crop_width, wide * ratio.pow(0.25))
        height = torch.where(cropped, crop_height, wide / ratio.pow(0.25))
        # A crop lies inside the image; a wider field contains nearly all of it.
        room_x = torch.where(cropped, 1 - width, 0.6 * (width - 1).clamp(min=0))
        room_y = torch.where(cropped, 1 - height, 0.6 * (height - 1).clamp(min=0))
        x, y = room_x * draws.between("x", -1, 1), room_y * draws.between("y", -1, 1)
    turn, mirror = _right_angles(draws["turn"], draws["mirror"])
    free = torch.where(draws["angle_on"] < 0.5, draws.between("angle", -torch.pi / 4, torch.pi / 4), 0.0)
    shear = torch.zeros_like(turn)
    shear[:, 0, 0] = shear[:, 1, 1] = 1.0
    shear[:, 0, 1] = draws.between("shear_x", -0.12, 0.12)
    shear[:, 1, 0] = draws.between("shear_y", -0.12, 0.12)
    linear = torch.stack((width, height), 1)[:, :, None] * (turn @ _rotation(free) @ shear)
    linear = torch.stack((linear[:, :, 0] * mirror[:, None], linear[:, :, 1]), 2)
    return torch.cat((linear, torch.stack((x, y), 1)[:, :, None]), 2)


def _colour(pixels: torch.Tensor, draws: _Draws, luma: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast, saturation, hue and gamma, white balance, and rarely grey."""

    def column(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None, None]

    jittered, cast = draws["jitter_on"] < 0.85, draws["cast_on"] < 0.5
    ones = torch.ones_like(draws["hue"])
    gains = torch.stack([draws.between(name, 0.9, 1.1) for name in ("red", "green", "blue")], 1)
    gains = torch.where(cast[:, None], gains, 1.0) * torch.where(
        jittered, draws.between("brightness", 0.8, 1.2), ones
    ).unsqueeze(1)
    gamma = torch.where(cast, torch.exp(draws.between("gamma", -0.25, 0.25)), ones)
    contrast = torch.where(jittered, draws.between("contrast", 0.75, 1.3), ones)
    saturation = torch.where(jittered, draws.between("saturation", 0.75, 1.25), ones)
    saturation = torch.where(draws["grey_on"] < 0.03, 0.0, saturation)
    hue = torch.where(jittered, draws.between("hue", -0.12, 0.12), 0.0)
    pixels = (pixels * gains[:, :, None, None]).clamp(1e-4, 1).pow(column(gamma))
    grey = (pixels * luma).sum(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    pixels = (pixels - level) * column(contrast) + level
    grey = (pixels * luma).sum(1, keepdim=True)
    chroma = pixels - grey
    # The hue turns about the grey axis: Rodrigues' formula for the component across it.
    axis = torch.full((3,), 3**-0.5, device=pixels.device)[None, :, None, None]
    along = (chroma * axis).sum(1, keepdim=True) * axis
    across = chroma - along
    crossed = (
        torch.stack(
            (across[:, 2] - across[:, 1], across[:, 0] - across[:, 2], across[:, 1] - across[:, 0]), 1
        )
        * 3**-0.5
    )
    turned = along + across * column(hue.cos()) + crossed * column(hue.sin())
    return (grey + turned * column(saturation)).clamp(0, 1)


def _sharpness(pixels: torch.Tensor, draws: _Draws, noise_seed: int) -> torch.Tensor:
    """One of blur, sharpening and noise, so that sharpness carries no information on the class."""
    changed = draws["sharp_on"] < 0.75
    kind, amount = draws["sharp_kind"], draws["sharp_amount"]
    blurs, sharpens = changed & (kind < 0.6), changed & (kind >= 0.6) & (kind < 0.8)
    sigma_px = torch.where(blurs, 0.3 + 1.5 * amount * amount, 0.8)
    soft = _gaussian(pixels, sigma_px * pixels.shape[-1] / 176)
    # pixels + weight * (soft - pixels): 1 blurs, a negative weight sharpens.
    weight = torch.where(blurs, 1.0, torch.where(sharpens, -0.2 - 1.0 * amount, 0.0))
    pixels = pixels + weight[:, None, None, None] * (soft - pixels)
    noisy = torch.where(changed & (kind >= 0.8), 0.005 + 0.035 * amount, 0.0)
    generator = torch.Generator(pixels.device).manual_seed(noise_seed)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    return pixels + noise * noisy[:, None, None, None]


def _gaussian(pixels: torch.Tensor, sigma_px: torch.Tensor, radius_px: int = 4) -> torch.Tensor:
    """Each image blurred with its own sigma, (n,), by shifted sums: no kernel per image is needed."""
    offsets = torch.arange(-radius_px, radius_px + 1, device=pixels.device)
    weights = torch.exp(-0.5 * (offsets[None] / sigma_px[:, None].clamp(min=1e-3)) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    for axis in (2, 3):
        pad = (radius_px, radius_px, 0, 0) if axis == 3 else (0, 0, radius_px, radius_px)
        padded = F.pad(pixels, pad, mode="replicate")
        length = pixels.shape[axis]
        total = torch.zeros_like(pixels)
        for index in range(2 * radius_px + 1):
            total += padded.narrow(axis, index, length) * weights[:, index, None, None, None]
        pixels = total
    return pixels


def _erase(pixels: torch.Tensor, draws: _Draws) -> torch.Tensor:
    """Up to three black rectangles in a quarter of the images, each 0.08 to 0.2 of the sides."""
    side = pixels.shape[-1]
    places = (torch.arange(side, device=pixels.device) + 0.5) / side
    erased = torch.zeros(len(pixels), side, side, dtype=torch.bool, device=pixels.device)
    for index in range(3):
        on = (draws["erase_on"] < 0.25) & (draws[f"erase{index}_on"] < (1.0, 2 / 3, 1 / 3)[index])
        across = (places - draws[f"erase{index}_x"][:, None]).abs()
        down = (places - draws[f"erase{index}_y"][:, None]).abs()
        half_width = draws.between(f"erase{index}_w", 0.04, 0.1)[:, None]
        half_height = draws.between(f"erase{index}_h", 0.04, 0.1)[:, None]
        inside = (down < half_height)[:, :, None] & (across < half_width)[:, None, :]
        erased |= inside & on[:, None, None]
    return pixels.masked_fill(erased[:, None], 0.0)


_overlays_by_device: dict[torch.device, dict[str, torch.Tensor]] = {}


def _overlays(device: torch.device) -> dict[str, torch.Tensor]:
    """Drawn artefacts by kind, uint8 (n, 4, 192, 192): colour times cover, and cover; made once per device.

    An artefact covers a black and a white image alike, so the two results give its colour and its cover.
    """
    if device not in _overlays_by_device:
        black = np.zeros((_BANK_PX, _BANK_PX, 3), dtype=np.uint8)
        bank = {}
        for number, (kind, (draw, _, count)) in enumerate(_ARTEFACTS.items()):
            layers = []
            for index in range(count):
                dark, light = (
                    draw(canvas, np.random.default_rng([_BANK_SEED, number, index])).astype(np.int16)
                    for canvas in (black, 255 - black)
                )
                cover = 255 - (light - dark).mean(axis=2, keepdims=True)
                layers.append(np.concatenate((dark, cover), axis=2).clip(0, 255).round().astype(np.uint8))
            stacked = np.ascontiguousarray(np.stack(layers).transpose(0, 3, 1, 2))
            bank[kind] = torch.from_numpy(stacked).to(device)
        _overlays_by_device[device] = bank
    return _overlays_by_device[device]
