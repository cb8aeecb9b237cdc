"""Test whether maps mean anything for this model: parameter randomisation, deletion and insertion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, SkipValidation

from skinlesion_cli.artifacts.bundle import Bundle, locate_model
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
from skinlesion_cli.explain.shuffling import cascading
from skinlesion_cli.inference.engine import Engine, EngineMember, ToInput
from skinlesion_cli.inference.prediction import ERROR
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.models.devices import NAMES as DEVICES
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table

_VIEWS = ("identity",)
_BATCH = 8
# Adebayo et al. judge by eye; half of perfect agreement is this project's line.
_MAX_CORRELATION = 0.5


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
    """Both tests, each with its interval over images; the verdict is in words."""
    check_named(settings.inputs)
    bundle = Bundle.load(locate_model(Workspace(settings.workspace), settings.model))
    predictor = Predictor.of_bundle(bundle, device=settings.device, runtime="torch")
    images, decided, failed = _predicted(settings, predictor)
    whole = predictor.engine
    engine = Engine(whole.members, whole.weights, _VIEWS, whole.to_input)
    with reporter.task("explaining", unit="images"):
        maps = _maps(engine.members, engine.to_input, images, decided, settings.method)
    with reporter.task("shuffling parameters", unit="networks"):
        randomised = _randomised(engine, images, decided, settings)
    with reporter.task("deletion and insertion", total=len(images), unit="images") as task:
        areas = []
        for index, image in enumerate(images):
            areas.append(_areas(engine, image, maps[index], int(decided[index]), settings.seed + index))
            task.advance()
    return _result(settings, bundle, maps, randomised, np.array(areas), failed)


def _predicted(
    settings: CheckSettings, predictor: Predictor
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


def _maps(
    members: Sequence[EngineMember],
    to_input: ToInput,
    images: Sequence[np.ndarray],
    classes: np.ndarray,
    method: str,
) -> np.ndarray:
    weights = [member.weight for member in members]
    maps = []
    for at in range(0, len(images), _BATCH):
        part = slice(at, at + _BATCH)
        maps.append(
            combined(
                [member_maps(to_input, m, images[part], classes[part], method, _VIEWS) for m in members],
                weights,
            )
        )
    return np.concatenate(maps)


def _randomised(
    engine: Engine, images: Sequence[np.ndarray], classes: np.ndarray, settings: CheckSettings
) -> list[tuple[str, str, MeanOf]]:
    """Member, what was shuffled (and all after it), and the correlation with the maps before."""
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime

    correlations_by_layer = []
    for member in engine.members:
        alone = replace(member, weight=1.0)
        before = _maps([alone], engine.to_input, images, classes, settings.method)
        network = member.runtime.network  # type: ignore[attr-defined]
        for name, shuffled in cascading(network, settings.seed):
            other = replace(
                member,
                weight=1.0,
                runtime=TorchRuntime(shuffled, str(member.runtime.device)),  # type: ignore[attr-defined]
                classifier=shuffled.classifier.weight.detach().cpu().numpy(),
            )
            after = _maps([other], engine.to_input, images, classes, settings.method)
            pairs = zip(before, after, strict=True)
            correlations = np.array([sanity.rank_correlation(one, two) for one, two in pairs])
            correlations_by_layer.append((member.name, name, mean_of(correlations)))
    return correlations_by_layer


def _areas(engine: Engine, image: np.ndarray, heat: np.ndarray, index: int, seed: int) -> list[float]:
    """Deletion and insertion of the map, of random places and of the centre."""

    def score(variants: np.ndarray) -> np.ndarray:
        return engine.run(list(variants)).probabilities[:, index]

    side = heat.shape[0]
    others = (sanity.random_map(side, np.random.default_rng(seed)), sanity.centre_map(side))
    return [area for m in (heat, *others) for area in sanity.deletion_insertion(image, m, score)]


def _result(
    settings: CheckSettings,
    bundle: Bundle,
    maps: np.ndarray,
    randomised: list[tuple[str, str, MeanOf]],
    areas: np.ndarray,
    failed: list[str],
) -> StageResult:
    side = maps.shape[1]
    zero = int((maps.max(axis=(1, 2)) == 0).sum())
    names = ("map", "random places", "centre of the image")
    tested = {
        name: {"deletion": mean_of(areas[:, 2 * i]), "insertion": mean_of(areas[:, 2 * i + 1])}
        for i, name in enumerate(names)
    }
    gains = {
        f"{kind} against {name}": mean_of(sign * (areas[:, column] - areas[:, 2 * i + column]))
        for i, name in ((1, names[1]), (2, names[2]))
        for kind, sign, column in (("deletion", -1, 0), ("insertion", 1, 1))
    }
    ends = [mean for member, _, mean in {m: (m, n, v) for m, n, v in randomised}.values()]
    verdicts = [
        _verdict_randomised(ends),
        _verdict_gain("random places", gains),
        _verdict_gain("the centre of the image", gains, names[2]),
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
        "gain": {name: asdict(mean) for name, mean in gains.items()},
        "verdicts": verdicts,
    }
    return StageResult(
        command="explain --check",
        headline=[
            f"{settings.method} of {bundle.model_id} on {len(maps)} images, maps of {side} x {side} places",
            *verdicts,
        ],
        figures=figures,
        tables=tables,
        warnings=[f"{len(failed)} images could not be read: {name_items(failed)}"] if failed else [],
        exit_code=ExitCode.PARTIAL if failed else ExitCode.OK,
    )


def _cells(mean: MeanOf) -> tuple[str, str]:
    value = "undefined" if mean.mean is None else f"{mean.mean:.3f}"
    return value, "undefined" if mean.low is None else f"{mean.low:.3f} to {mean.high:.3f}"


def _verdict_randomised(ends: Sequence[MeanOf]) -> str:
    means = [mean.mean for mean in ends if mean.mean is not None]
    if not means:
        return "Parameter randomisation: undefined, the shuffled networks' maps are the same everywhere."
    highest = max(means)
    if highest < _MAX_CORRELATION:
        return (
            f"Parameter randomisation: passed; all shuffled, maps correlate {highest:.2f} with the "
            "trained ones."
        )
    return (
        "Parameter randomisation: FAILED; with all parameters shuffled the maps still correlate "
        f"{highest:.2f} "
        "with the trained ones. They show the image more than what the network learned."
    )


def _verdict_gain(what: str, gains: dict[str, MeanOf], name: str = "random places") -> str:
    parts = []
    for kind in ("deletion", "insertion"):
        gain = gains[f"{kind} against {name}"]
        if gain.low is None or gain.high is None:
            parts.append(f"{kind} undefined (too few images)")
        else:
            how = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no different"
            parts.append(f"{kind} {how} ({gain.mean:+.3f})")
    return f"Against {what}: " + ", ".join(parts) + "."
