"""Choice of the device. A device that was asked for and is not available is an error,
never a silent fallback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinlesion_cli.errors import SkinLesionError, UsageError

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """The torch device with this name; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError : there is no such name.
    SkinLesionError : the device was asked for by name and is not available.
    """
    if name not in NAMES:
        raise UsageError(f"no device named {name!r}", "Devices: " + ", ".join(NAMES))
    # Imported here, so that the names are available without torch.
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available[name]:
        raise SkinLesionError(
            f"--device {name}: torch {torch.__version__} finds no such device",
            "Use --device cpu, or install a build of torch that supports it.",
        )
    return torch.device(name)
