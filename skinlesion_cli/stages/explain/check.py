"""Test whether maps mean anything for this model: parameter randomisation, deletion and insertion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, SkipValidation

from skinlesion_cli.artifacts.bundle import Bundle, locate_finished
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data.preprocess import resize_square
from skinlesion_cli.data.reading.inputs import check_named, expand
from skinlesion_cli.errors import ExitCode, UsageError, name_items
from skinlesion_cli.explain import sanity
from skinlesion_cli.explain.cam import combined
from skinlesion_cli.explain.member_maps import member_maps
from skinlesion_cli.explain.methods import DEFAULT, METHODS
from skinlesion_cli.explain.sanity import MeanOf, mean_of
from skinlesion_cli.explain.shuffling import cascading, n_shuffles
from skinlesion_cli.inference.engine import Engine, EngineMember, ToInput
from skinlesion_cli.inference.loading import gpu_is_there
from skinlesion_cli.inference.prediction import ERROR
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.models.devices import NAMES as DEVICES
from skinlesion_cli.parallel import available_cores, in_batches, in_order
from skinlesion_cli.progress import Reporter, Task
from skinlesion_cli.result import StageResult, Table, counted
from skinlesion_cli.stages.explain.check_verdicts import (
    ErasureTest,
    conclusion,
    gain_verdict,
    randomisation_verdict,
)

_VIEWS = ("identity",)
_BATCH = 8
# By what an image is erased: the map itself, and what it has to beat.
_ORDERS = ("map", "random places", "centre of the image")


class CheckSettings(StageSettings):
    """What to check on: at most `n_images` of the inputs, in their order."""

    workspace: Path
    inputs: tuple[str, ...]
    listed: SkipValidation[Iterable[str]] = ()
    method: Annotated[str, one_of(METHODS)] = DEFAULT
    device: Annotated[str, one_of(DEVICES)] = "auto"
    n_images: PositiveInt = 24
    seed: NonNegativeInt = 0
    model: str | None = None


def run(settings: CheckSettings, reporter: Reporter) -> StageResult:
    """Both tests, each with its interval over images, and one sentence that concludes."""
    check_named(settings.inputs)
    bundle = Bundle.load(locate_finished(Workspace(settings.workspace), settings.model))
    predictor = Predictor.of_bundle(bundle, device=settings.device, runtime="torch")
    whole = predictor.engine
    engine = Engine(whole.members, whole.weights, _VIEWS, whole.to_input)
    with reporter.task("predicting", unit="images") as task:
        images, decided, failed = _predicted(settings, predictor, task)
    n_shuffled = sum(n_shuffles(_network(member)) for member in engine.members)
    reporter.note(
        f"checking the maps of {counted(len(images), 'image')}: against {n_shuffled} shuffled networks, "
        "then by erasing parts of each image"
    )
    n_maps = len(images) * len(engine.members)
    with reporter.task("mapping", total=n_maps, unit="maps") as task:
        before = [_maps(m, engine.to_input, images, decided, settings.method, task) for m in engine.members]
    maps = combined(before, [member.weight for member in engine.members])
    total = n_shuffled * len(images)
    with reporter.task("mapping shuffled networks", total=total, unit="maps") as task:
        randomised = _randomised(engine, images, decided, before, settings, task)

    def curves(index: int) -> list[sanity.Curves]:
        return _curves(engine, images[index], maps[index], int(decided[index]), settings.seed + index)

    on_gpu = gpu_is_there(settings.device)
    threads = 1 if on_gpu else available_cores()
    with reporter.task("erasing", total=len(images), unit="images") as task:
        of_images = []
        for each in in_order(range(len(images)), curves, threads=threads):
            of_images.append(each)
            task.advance()
    return _result(settings, bundle, maps, randomised, of_images, failed)


def _predicted(
    settings: CheckSettings, predictor: Predictor, task: Task
) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """The images that could be read, the class decided for each, int64 (n,),
    and those that could not be read.

    Images are squares at the size that the networks see,
    so that what is deleted is deleted from what they see.
    """
    images: list[np.ndarray] = []
    decided: list[np.ndarray] = []
    failed: list[str] = []
    sources = islice(expand(settings.inputs, settings.listed), settings.n_images)
    for part in in_batches(sources, _BATCH):
        batch = predictor.run(part)
        task.advance(len(part))
        failed += [f"{p.id} ({p.error})" for p in batch.predictions if p.status == ERROR]
        images += [resize_square(image, predictor.target_px) for image in batch.images]
        if batch.decided is not None:
            decided.append(batch.decided)
    if not images:
        raise UsageError(
            "there is no image to check on" + (f": {name_items(failed)}" if failed else ""),
            "Name a folder with a few dozen images of the kind that you predict.",
        )
    return images, np.concatenate(decided), failed


def _network(member: EngineMember) -> Any:
    """The network of a member that torch runs."""
    return member.runtime.network  # type: ignore[attr-defined]


def _maps(
    member: EngineMember,
    to_input: ToInput,
    images: Sequence[np.ndarray],
    classes: np.ndarray,
    method: str,
    task: Task,
) -> np.ndarray:
    """Maps of one member, float32 (n, h, w)."""
    maps = []
    for at in range(0, len(images), _BATCH):
        part = slice(at, at + _BATCH)
        maps.append(member_maps(to_input, member, images[part], classes[part], method, _VIEWS))
        task.advance(len(maps[-1]))
    return np.concatenate(maps)


def _randomised(
    engine: Engine,
    images: Sequence[np.ndarray],
    classes: np.ndarray,
    trained: Sequence[np.ndarray],
    settings: CheckSettings,
    task: Task,
) -> list[tuple[str, str, MeanOf]]:
    """Member, what was shuffled (and all after it), and the correlation with the trained member's maps."""
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime

    correlations_by_layer = []
    for member, before in zip(engine.members, trained, strict=True):
        for name, shuffled in cascading(_network(member), settings.seed):
            other = replace(
                member,
                runtime=TorchRuntime(shuffled, str(member.runtime.device)),  # type: ignore[attr-defined]
                classifier=shuffled.classifier.weight.detach().cpu().numpy(),
            )
            after = _maps(other, engine.to_input, images, classes, settings.method, task)
            pairs = zip(before, after, strict=True)
            correlations = np.array([sanity.rank_correlation(one, two) for one, two in pairs])
            correlations_by_layer.append((member.name, name, mean_of(correlations)))
    return correlations_by_layer


def _curves(
    engine: Engine, image: np.ndarray, heat: np.ndarray, index: int, seed: int
) -> list[sanity.Curves]:
    """Deletion and insertion curves of the map, of random places and of the centre."""

    def score(variants: np.ndarray) -> np.ndarray:
        # In batches: dozens of large images at once would need gigabytes.
        parts = in_batches(variants, _BATCH)
        return np.concatenate([engine.run(part).probabilities[:, index] for part in parts])

    side = heat.shape[0]
    others = (sanity.random_map(side, np.random.default_rng(seed)), sanity.centre_map(side))
    return sanity.perturbation_curves(image, (heat, *others), score)


def _result(
    settings: CheckSettings,
    bundle: Bundle,
    maps: np.ndarray,
    randomised: list[tuple[str, str, MeanOf]],
    curves: Sequence[Sequence[sanity.Curves]],
    failed: list[str],
) -> StageResult:
    side = maps.shape[1]
    zero = int((maps.max(axis=(1, 2)) == 0).sum())
    areas = {
        "deletion": np.array([[each.deletion for each in of_image] for of_image in curves]),
        "insertion": np.array([[each.insertion for each in of_image] for of_image in curves]),
    }
    drops = np.array([[each.drop for each in of_image] for of_image in curves])
    tested = {
        name: {kind: mean_of(values[:, column]) for kind, values in areas.items()}
        for column, name in enumerate(_ORDERS)
    }
    gains = {
        name: {
            "deletion": mean_of(areas["deletion"][:, column] - areas["deletion"][:, 0]),
            "insertion": mean_of(areas["insertion"][:, 0] - areas["insertion"][:, column]),
        }
        for column, name in enumerate(_ORDERS[1:], start=1)
    }
    ends = [mean for member, _, mean in {m: (m, n, v) for m, n, v in randomised}.values()]
    erasure = ErasureTest.of_drops(drops[:, 0], drops[:, 1])
    concluded = conclusion(erasure, ends)
    verdicts = [
        randomisation_verdict(ends),
        gain_verdict("random places", gains["random places"]),
        gain_verdict("the centre of the image", gains["centre of the image"]),
    ]
    if zero:
        verdicts.append(f"{zero} of {len(maps)} maps are all zero: no region supports the decided class.")
    tables = [
        Table(
            "Shuffled parameters: rank correlation with the trained network's maps",
            ("shuffled, with all after it", "correlation", "95 % interval", "images"),
            [(f"{member} {name}", *_cells(mean), mean.n) for member, name, mean in randomised],
        ),
        Table(
            "Deletion (low is good) and insertion (high is good): mean probability of the decided class",
            ("order of places", "deletion", "95 % interval", "insertion", "95 % interval"),
            [(name, *_cells(two["deletion"]), *_cells(two["insertion"])) for name, two in tested.items()],
        ),
    ]
    figures: dict[str, Any] = {
        "images": len(maps),
        "failed": len(failed),
        "all_zero": zero,
        "method": settings.method,
        "grid": side,
        "model": bundle.model_id,
        "model_sha256": bundle.sha256,
        "parameter_randomisation": [
            {"member": member, "shuffled": name, **asdict(mean)} for member, name, mean in randomised
        ],
        "deletion_insertion": {
            name: {kind: asdict(mean) for kind, mean in two.items()} for name, two in tested.items()
        },
        "gain": {
            f"{kind} against {name}": asdict(mean)
            for name, by_kind in gains.items()
            for kind, mean in by_kind.items()
        },
        "erasure": {"share": sanity.ERASED_SHARE, "finding": erasure.finding.value, **asdict(erasure)},
        "conclusion": concluded,
        "verdicts": verdicts,
    }
    return StageResult(
        command="explain --check",
        headline=[
            f"{settings.method} of {bundle.model_id} on {counted(len(maps), 'image')}, maps of "
            f"{side} x {side} places",
            concluded,
            *verdicts,
        ],
        figures=figures,
        tables=tables,
        warnings=[f"{counted(len(failed), 'image')} could not be read: {name_items(failed)}"]
        if failed
        else [],
        exit_code=ExitCode.PARTIAL if failed else ExitCode.OK,
    )


def _cells(mean: MeanOf) -> tuple[str, str]:
    value = "undefined" if mean.mean is None else f"{mean.mean:.3f}"
    return value, "undefined" if mean.low is None else f"{mean.low:.3f} to {mean.high:.3f}"
