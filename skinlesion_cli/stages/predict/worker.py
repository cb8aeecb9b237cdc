"""One worker: it loads the networks once, then turns chunks of inputs into rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import decode_target_px
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.inputs import ImageInput, load
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.errors import ArtifactError, ImageError, name_items
from skinlesion_cli.explain.overlay_writer import overlay_writer
from skinlesion_cli.explain.writer import Pixels
from skinlesion_cli.inference import rows
from skinlesion_cli.inference.loading import load_engine

Numbered = tuple[int, ImageInput]


@dataclass(frozen=True)
class Plan:
    """All that decides a row, besides the image; it travels to other processes and machines.

    `runtime` is a name in `runtimes.RUNTIMES` (nothing is left to be chosen elsewhere). `overlays` is the
    folder for class activation maps, `thumbnails` that for the pictures of the page; None: none are made.
    """

    workspace: Path
    model_sha256: str
    runtime: str
    device: str = "auto"
    tta: str | None = None
    force: bool = False
    max_pixels: int = MAX_PIXELS
    overlays: Path | None = None
    cam_style: str = "overlay"
    thumbnails: Path | None = None


class Worker:
    """Runs a plan. `rows` may be called from several threads at once."""

    def __init__(
        self, plan: Plan, bundle: Bundle | None = None, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self.plan = plan
        self.bundle = bundle or bundles.from_workspace(Workspace(plan.workspace))
        if self.bundle.sha256 != plan.model_sha256:
            raise ArtifactError(
                f"the model at hand is {self.bundle.sha256[:12]}, but the run was begun with "
                f"{plan.model_sha256[:12]}",
                "Do not train or calibrate in a workspace while it predicts.",
            )
        self.engine = load_engine(
            self.bundle, plan.device, plan.runtime, tta_mode=plan.tta, force=plan.force, note=note
        )
        if plan.runtime == "torch":
            import torch

            # Images go side by side, one thread each.
            torch.set_num_threads(1)
        self.target_px = max(decode_target_px(member.preprocessing) for member in self.engine.members)
        self.overlays = None
        if plan.overlays is not None:
            self.overlays = overlay_writer(
                plan.overlays, self.bundle, self.engine, style=plan.cam_style, thumbnails=plan.thumbnails
            )
        self.origin = {
            "tta": self.engine.tta_mode,
            "model": self.bundle.model_id,
            "model_sha256": self.bundle.sha256,
        }

    def rows(self, chunk: Sequence[Numbered]) -> list[dict[str, Any]]:
        """One row an input, in order; an image that cannot be read costs its own row only."""
        loaded = [(number, source, self._load(source)) for number, source in chunk]
        images = [(s, image) for _, s, image in loaded if isinstance(image, np.ndarray)]
        found = iter(self._predict(images) if images else [])
        return [
            (rows.failed(image) if isinstance(image, ImageError) else next(found))
            | self.origin
            | {"row": number, "id": source.id}
            for number, source, image in loaded
        ]

    def _load(self, source: ImageInput) -> np.ndarray | ImageError:
        try:
            return load(source, max_pixels=self.plan.max_pixels, target_px=self.target_px)
        except ImageError as error:
            return error

    def _predict(self, images: Sequence[tuple[ImageInput, np.ndarray]]) -> list[dict[str, Any]]:
        pixels = [image for _, image in images]
        try:
            output = self.engine.run(pixels, keep_features=self.plan.overlays is not None)
        except FloatingPointError as error:
            raise ArtifactError(
                f"{error}, for one of {name_items(source.id for source, _ in images)}",
                "The network is damaged or its training diverged: train it again.",
            ) from None
        gate = self.bundle.gate
        verdicts = None if gate is None else [gate.verdict(statistics(image)) for image in pixels]
        flagged = None if verdicts is None else np.array([verdict.flagged for verdict in verdicts])
        outcome = self.bundle.calibration.decide(output.probabilities, flagged)
        found = [rows.predicted(index, outcome, int(output.passes[index])) for index in range(len(images))]
        for row, verdict in zip(found, verdicts or [], strict=False):
            row |= {
                "quality": "|".join(verdict.failed) or "ok",
                "quality_score": verdict.score,
                "flagged": verdict.flagged,
            }
        if self.overlays is not None:
            records = self.overlays.write(
                [source.id for source, _ in images],
                [self._full_size(source, image) for source, image in images],
                output.features,
                outcome.decisions.decided,
                outcome.probabilities,
            )
            for row, record in zip(found, records, strict=True):
                row |= {"overlay": record.overlay, "overlay_magnitude": record.magnitude}
        return found

    def _full_size(self, source: ImageInput, image: np.ndarray) -> Pixels:
        """The image at its own size: as it was read, or, where it may have been read smaller, how to read it."""
        if min(image.shape[:2]) < 2 * self.target_px:
            return image
        return partial(load, source, max_pixels=self.plan.max_pixels)


@lru_cache(maxsize=1)
def worker_of(plan: Plan) -> Worker:
    """This process's worker for a plan: the networks are loaded once a process."""
    return Worker(plan)


def rows_of(plan: Plan, chunks: Sequence[Sequence[Numbered]]) -> list[list[dict[str, Any]]]:
    """Rows of several chunks; what another process is asked to do."""
    worker = worker_of(plan)
    return [worker.rows(chunk) for chunk in chunks]
