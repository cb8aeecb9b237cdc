"""One worker: it loads the networks once, then turns chunks of inputs into predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.explain.overlay_writer import overlay_writer
from skinlesion_cli.explain.writer import Undrawn
from skinlesion_cli.inference.prediction import Prediction
from skinlesion_cli.inference.predictor import PredictedBatch, Predictor
from skinlesion_cli.inference.similar import SimilarCases

Numbered = tuple[int, ImageInput]


@dataclass(frozen=True)
class Plan:
    """All that decides a row, besides the image; it travels to other processes and machines.

    `runtime` is a name in `runtimes.RUNTIMES` (nothing is left to be chosen elsewhere). `overlays` is the
    folder for class activation maps, `thumbnails` that for the pictures of the page; None: none are made.
    `similar` cases are named for each image, from the table of this hash; 0: none are looked for.
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
    similar: int = 0
    similar_sha256: str = ""


class Worker:
    """Runs a plan. `predict` may be called from several threads at once."""

    def __init__(
        self, plan: Plan, bundle: Bundle | None = None, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self.plan = plan
        bundle = bundle or Bundle.load(Workspace(plan.workspace))
        if bundle.sha256 != plan.model_sha256:
            raise ArtifactError(
                f"the model in {plan.workspace} is now {bundle.sha256[:12]}, but the run was started with "
                f"{plan.model_sha256[:12]}",
                "Do not train or calibrate in a workspace while it predicts.",
            )
        similar = None
        if plan.similar:
            similar = SimilarCases.load(Workspace(plan.workspace), bundle, plan.similar)
            if similar.sha256 != plan.similar_sha256:
                raise ArtifactError(
                    f"the table of similar cases in {plan.workspace} has changed since the run was started",
                    "Do not run `skinlesion gate` in a workspace while it predicts.",
                )
        self.predictor = Predictor.of_bundle(
            bundle,
            device=plan.device,
            runtime=plan.runtime,
            tta=plan.tta,
            force=plan.force,
            max_pixels=plan.max_pixels,
            similar=similar,
            note=note,
        )
        if plan.runtime == "torch":
            import torch

            # Images are predicted side by side, one thread each.
            torch.set_num_threads(1)
        self.overlays = None
        if plan.overlays is not None:
            self.overlays = overlay_writer(
                plan.overlays, self.predictor, style=plan.cam_style, thumbnails=plan.thumbnails
            )

    def predict(self, chunk: Sequence[Numbered]) -> list[Prediction]:
        """One prediction per input, in order; an image that cannot be read costs its own row only."""
        sources = [source for _, source in chunk]
        batch = self.predictor.run(sources, keep_layers=self.overlays is not None)
        predictions = self._with_overlays(sources, batch)
        return [
            replace(prediction, row=number)
            for prediction, (number, _) in zip(predictions, chunk, strict=True)
        ]

    def _with_overlays(self, sources: Sequence[ImageInput], batch: PredictedBatch) -> list[Prediction]:
        predictions = list(batch.predictions)
        if (
            self.overlays is None
            or batch.output is None
            or batch.decided is None
            or batch.probabilities is None
        ):
            return predictions
        records = self.overlays.write(
            [sources[index].id for index in batch.decoded],
            self.predictor.in_full(sources, batch),
            batch.output.layers,
            batch.decided,
            batch.probabilities,
        )
        for index, record in zip(batch.decoded, records, strict=True):
            if isinstance(record, Undrawn):
                # What is under this name now may be another image than the one predicted.
                predictions[index] = Prediction.failed(record.id, record.error, **self.predictor.origin)
            else:
                predictions[index] = replace(
                    predictions[index],
                    overlay=record.overlay,
                    overlay_magnitude=record.magnitude,
                    overlay_outside_lesion=record.outside_lesion,
                    overlay_at_border=record.at_border,
                )
        return predictions


@lru_cache(maxsize=1)
def worker_of(plan: Plan) -> Worker:
    """This process's worker for a plan: the networks are loaded once per process."""
    return Worker(plan)


def predictions_of(plan: Plan, chunks: Sequence[Sequence[Numbered]]) -> list[list[Prediction]]:
    """Predictions of several chunks; what another process is asked to do."""
    worker = worker_of(plan)
    return [worker.predict(chunk) for chunk in chunks]
