"""Overlays of batch after batch, drawn and written by a thread in the background.

overlays = OverlayWriter(folder, weights=weights, classifiers=classifiers, thresholds=thresholds)
for ... in batches:
    records = overlays.write(ids, images, layers, decided, probabilities)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, PngImagePlugin

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.artifacts.maps import MapRecord, relative_path
from skinlesion_cli.artifacts.output_checks import refuse_foreign_overlay
from skinlesion_cli.errors import ImageError
from skinlesion_cli.explain.cam import combined, resized
from skinlesion_cli.explain.methods import DEFAULT, closed_maps, is_closed
from skinlesion_cli.explain.overlay import STYLES, Caption, render
from skinlesion_cli.explain.placement import placement
from skinlesion_cli.explain.png import png
from skinlesion_cli.explain.thumbnails import write_thumbnail
from skinlesion_cli.inference.runtimes.base import Outputs
from skinlesion_cli.taxonomy import DISCLAIMER
from skinlesion_cli.taxonomy.class_list import ClassList

RAW_KINDS: Final = ("png16", "npz")
# An image, or how to read it at its own size.
Pixels = np.ndarray | Callable[[], np.ndarray]
# Of stored maps: level 1 takes a fifth of the time of the usual 6 and 15 % more bytes.
_PNG_LEVEL = 1
# Drawing takes several times the memory of the image: larger ones are drawn at half of their size, or less.
_MAX_DRAWN_PIXELS = 24_000_000


def _bounded(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    factor = math.ceil(math.sqrt(height * width / _MAX_DRAWN_PIXELS))
    return image if factor <= 1 else np.asarray(Image.fromarray(image).reduce(factor))


@dataclass(frozen=True)
class Undrawn:
    """An image that could not be read a second time, at its own size, so that no map was drawn over it."""

    id: str
    error: ImageError


@dataclass(frozen=True)
class OverlayWriter:
    """Writes one overlay per image and class below `folder`; may be used by several threads at once.

    Attributes
    ----------
    weights, classifiers : of the ensemble's members, in their order: the weight, and float32
        (n_classes, n_features).
    thresholds : class name -> threshold, for the titles. class_list : what the model distinguishes.
    method : of `methods.METHODS`, one that `is_closed`, for `write`.
    style : one of `overlay.STYLES`. raw : also write the maps, `png16` or `npz`.
    classes : what to explain of every image; None: the class decided on.
    thumbnails : a folder for small pictures, of a page; None: none are made.
    model_sha256 : written into every overlay.
    """

    folder: Path
    weights: Sequence[float]
    classifiers: Sequence[np.ndarray]
    thresholds: Mapping[str, float]
    class_list: ClassList
    method: str = DEFAULT
    style: str = STYLES[0]
    raw: str | None = None
    classes: Sequence[int] | None = None
    thumbnails: Path | None = None
    model_sha256: str = ""

    def write(
        self,
        ids: Sequence[str],
        images: Sequence[Pixels],
        layers: Sequence[Outputs],
        decided: np.ndarray,
        probabilities: np.ndarray,
    ) -> list[MapRecord | Undrawn]:
        """Maps of a batch from the outputs of its forward pass, written to disk.

        An image that cannot be read any more, because it was removed since it was predicted, say,
        is `Undrawn`.

        Parameters
        ----------
        images : uint8 (height, width, 3) at the original size, or functions that read them, so that no more
            than one large image is in memory at a time.
        layers : of every member, for the n images.
        decided : int64 (n,). probabilities : float32 (n, n_classes), calibrated.

        Raises
        ------
        SkinLesionError : a file could not be written.
        """
        records: list[MapRecord | Undrawn] = []
        for explained in self.explained(decided):
            maps = combined(
                [
                    closed_maps(self.method, outputs, classifier, explained)
                    for outputs, classifier in zip(layers, self.classifiers, strict=True)
                ],
                self.weights,
            )
            records += self.write_maps(ids, images, maps, explained, decided, probabilities)
        return records

    def write_maps(
        self,
        ids: Sequence[str],
        images: Sequence[Pixels],
        maps: np.ndarray,
        explained: np.ndarray,
        decided: np.ndarray,
        probabilities: np.ndarray,
    ) -> list[MapRecord | Undrawn]:
        """The same for maps, float32 (n, h, w), of the classes `explained`, int64 (n,), from elsewhere."""
        records: list[MapRecord | Undrawn] = []
        for index, identity in enumerate(ids):
            record = self._record(
                identity, maps[index], int(explained[index]), int(decided[index]), probabilities[index]
            )
            try:
                records.append(self._save(record, images[index], maps[index]))
            except ImageError as error:
                records.append(Undrawn(identity, error))
        return records

    def explained(self, decided: np.ndarray) -> list[np.ndarray]:
        """The classes to explain: for each map that every image gets, the class of each image, int64 (n,)."""
        if self.classes is None:
            return [decided]
        return [np.full(len(decided), index, dtype=np.int64) for index in self.classes]

    def _record(
        self, identity: str, heat: np.ndarray, explained: int, decided: int, probabilities: np.ndarray
    ) -> MapRecord:
        name = self.class_list.codes[explained]
        class_in_path = None if self.classes is None else name
        suffix = {"png16": ".raw.png", "npz": ".npz"}
        return MapRecord(
            id=identity,
            class_name=name,
            decision=self.class_list.codes[decided],
            probability=float(probabilities[explained]),
            magnitude=float(heat.max()),
            total=float(heat.sum()),
            overlay=relative_path(identity, class_in_path),
            raw=relative_path(identity, class_in_path, suffix[self.raw]) if self.raw else "",
        )

    def _caption(self, record: MapRecord) -> Caption:
        name, p = record.class_name, f"{record.probability:.2f}"
        threshold = self.thresholds.get(name)
        limit = "no threshold" if threshold is None else f"threshold {threshold:.2f}"
        short = "" if threshold is None else f" / {threshold:.2f}"
        other = "" if record.decision == name else f", decided {record.decision}"
        return Caption(
            titles=(
                f"{name} {p}  {self.class_list.titles[name]}, {limit}{other}",
                f"{name} {p}  {limit}{other}",
                f"{name} {p}{short}{other}",
                f"{name} {p}",
            ),
            magnitude=record.magnitude,
            unit="logits" if is_closed(self.method) else "",
        )

    def _save(self, record: MapRecord, pixels: Pixels, heat: np.ndarray) -> MapRecord:
        """Write the overlay and the map; the record with where the map lies."""
        for name in filter(None, (record.overlay, record.raw)):
            refuse_foreign_overlay(self.folder, self.folder / name)
        image = _bounded(pixels if isinstance(pixels, np.ndarray) else pixels())
        lies = placement(image, heat)
        record = replace(record, outside_lesion=lies.outside_lesion, at_border=lies.at_border)
        if self.thumbnails is not None:
            write_thumbnail(self.thumbnails, record.id, image, heat)
        drawn = render(image, heat, self._caption(record), self.style)
        facts = PngImagePlugin.PngInfo()
        for key, value in record.row().items():
            facts.add_itxt(f"skinlesion:{key}", value)
        facts.add_itxt("skinlesion:model_sha256", self.model_sha256)
        facts.add_itxt("Disclaimer", DISCLAIMER)
        atomic_write(self.folder / record.overlay, png(drawn, facts), durable=False)
        if record.raw:
            raw = self._raw(record, heat, image.shape[1], image.shape[0])
            atomic_write(self.folder / record.raw, raw, durable=False)
        return record

    def _raw(self, record: MapRecord, heat: np.ndarray, width: int, height: int) -> bytes:
        content = BytesIO()
        if self.raw == "npz":
            np.savez_compressed(content, map=heat.astype(np.float32), size_px=np.array([height, width]))
            return content.getvalue()
        # 65535 stands for the magnitude that the table and the file itself give.
        grown = np.clip(resized(heat, width, height, Image.Resampling.BICUBIC), 0.0, record.magnitude)
        scaled = grown / record.magnitude * 65535.0 if record.magnitude > 0 else grown
        facts = PngImagePlugin.PngInfo()
        facts.add_itxt("skinlesion:magnitude", f"{record.magnitude:.6g}")
        Image.fromarray((scaled + 0.5).astype(np.uint16)).save(
            content, format="PNG", compress_level=_PNG_LEVEL, pnginfo=facts
        )
        return content.getvalue()
