"""From a bundle on disk to an engine that runs: which runtime, which views, on which device."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.bundle import BUNDLED_NAME, Bundle
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.engine import Engine
from skinlesion_cli.inference.runtimes.registry import RUNTIMES

AUTO = "auto"
TTA_MODES = (*tta.MODES, tta.ADAPTIVE)


@dataclass(frozen=True)
class TtaChoice:
    """`forced`: the thresholds were calibrated under another mode."""

    mode: str
    views: tuple[str, ...]
    stopping: StoppingRule | None
    forced: bool

    @property
    def label(self) -> str:
        return f"{self.mode} (forced)" if self.forced else self.mode


def choose_tta(calibration: Calibration, wanted: str | None = None, *, force: bool = False) -> TtaChoice:
    """The views to average: those that the calibration was fitted on, unless others are forced.

    Raises
    ------
    UsageError : no such mode, another mode without `force`, or `adaptive` where no stopping rule was fitted.
    """
    mode = wanted or calibration.tta_mode
    if wanted is not None and wanted not in TTA_MODES:
        raise UsageError(f"no TTA mode named {wanted!r}", "Modes: " + ", ".join(TTA_MODES))
    other = mode != calibration.tta_mode
    if other and not force:
        raise UsageError(
            f"--tta {mode} was requested, but the thresholds were calibrated with {calibration.tta_mode}",
            "Omit --tta, calibrate with that mode, or add --force (the output then says so).",
        )
    if mode == tta.ADAPTIVE:
        stopping = calibration.stopping_rule
        if stopping is None:
            raise UsageError(
                "this calibration holds no stopping rule for --tta adaptive",
                "Run `skinlesion calibrate --adaptive decision` first.",
            )
        return TtaChoice(mode, calibration.views, stopping, other)
    views = calibration.views if not other else tta.MODES[mode]
    return TtaChoice(mode, views, None, other)


def choose_runtime(wanted: str, device: str) -> str:
    """A name in `RUNTIMES`; `auto` takes onnx where it is installed and no GPU is requested or present.

    Raises
    ------
    UsageError : no such runtime, or it is not installed.
    """
    if wanted not in (AUTO, *RUNTIMES):
        raise UsageError(f"no runtime named {wanted!r}", "Runtimes: " + ", ".join((AUTO, *RUNTIMES)))
    on_cpu = device in ("auto", "cpu")
    if wanted == AUTO:
        return "onnx" if RUNTIMES["onnx"].is_installed and on_cpu and not gpu_is_there(device) else "torch"
    runtime = RUNTIMES[wanted]
    if not runtime.is_installed:
        raise UsageError(
            f"{runtime.package} is not installed", f"Run `{runtime.install}`, or use --runtime torch."
        )
    if runtime.cpu_only and not on_cpu:
        raise UsageError(f"--runtime {wanted} runs on the CPU; --device {device} needs --runtime torch")
    return wanted


def default_batch(runtime: str, device: str) -> int:
    """Images per batch: many fill a GPU; on a CPU they run one by one,
    and with few the first rows come sooner.
    """
    on_gpu = not RUNTIMES[runtime].cpu_only and (device in ("cuda", "mps") or gpu_is_there(device))
    return 32 if on_gpu else 2


def gpu_is_there(device: str = "auto") -> bool:
    """Whether the machine has a GPU, whatever torch can do with it; never for the device `cpu`."""
    if device == "cpu":
        return False
    # Loading torch to ask it takes seconds; the NVIDIA driver's own library answers at once.
    import ctypes
    import sys

    if sys.platform == "darwin":
        import platform

        return platform.machine() == "arm64"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False


def resolve_runtime(
    bundle: Bundle, wanted: str, device: str, note: Callable[[str], None], *, model: str | None = None
) -> str:
    """The runtime to use with this bundle; `auto` takes onnx only where every network has been exported.

    `model` is the name that the user gave; the note names it in the command that exports them.
    """
    kind = choose_runtime(wanted, device)
    exported = kind == "torch" or all(exports.is_there(member, kind) for member in bundle.members)
    if wanted == AUTO and not exported:
        name = model or (BUNDLED_NAME if bundle.is_bundled else None)
        command = "skinlesion export" + (f" --model {shlex.quote(name)}" if name else "")
        note(f"predicting with torch; run `{command}` once, and onnxruntime predicts much faster")
        return "torch"
    return kind


def load_engine(
    bundle: Bundle,
    device: str = "auto",
    runtime: str = "auto",
    *,
    tta_mode: str | None = None,
    force: bool = False,
    model: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The bundle's networks, ready to run.

    Parameters
    ----------
    runtime : see `choose_runtime`. `auto` needs exports that are there (`skinlesion export`), or takes torch.
    tta_mode, force : see `choose_tta`.
    model : see `resolve_runtime`.
    note : called with a sentence about each choice that was made.

    Raises
    ------
    ArtifactError : an export is missing, or was made from another network.
    """
    choice = choose_tta(bundle.calibration, tta_mode, force=force)
    unknown = [name for name in dict.fromkeys(choice.views) if name not in tta.VIEWS]
    if unknown:
        raise ArtifactError(
            f"the model needs test-time views that this version does not know: {name_items(unknown)}",
            "Known: " + ", ".join(tta.VIEWS),
        )
    kind = resolve_runtime(bundle, runtime, device, note, model=model)
    members = [
        RUNTIMES[kind].member(checkpoint, float(weight), device)
        for checkpoint, weight in zip(bundle.members, bundle.ensemble.weights, strict=True)
    ]
    groups, stopping = bundle.ensemble.member_groups, choice.stopping
    if stopping is not None and len(stopping.weights) not in (1, len(groups)):
        raise ArtifactError(
            f"the stopping rule is for {len(stopping.weights)} member groups, but the ensemble has "
            f"{len(groups)}",
            "Run `skinlesion calibrate --adaptive decision` again.",
        )
    return Engine(
        members,
        bundle.ensemble.weights,
        choice.views,
        to_input,
        stopping=stopping,
        member_groups=groups,
        tta_mode=choice.label,
    )
