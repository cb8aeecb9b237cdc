"""Which device to run on; what was asked for and is not there is an error, never a silent CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinlesion_cli.errors import SkinLesionError, UsageError

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """The torch device of this name; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError : no such name.
    SkinLesionError : the device was asked for by name and is not there.
    """
    if name not in NAMES:
        raise UsageError(f"no device named {name!r}", "Devices: " + ", ".join(NAMES))
    # Imported late, so that the names are known without it.
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there[name]:
        raise SkinLesionError(
            f"--device {name} was asked for, but torch {torch.__version__} sees no such device",
            "Use --device cpu, or install a build of torch that supports it.",
        )
    return torch.device(name)
