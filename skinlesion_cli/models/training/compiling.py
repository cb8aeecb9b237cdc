"""`torch.compile`, for the steps of a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from skinlesion_cli.errors import SkinLesionError


def compiled(network: nn.Module) -> Callable[..., torch.Tensor]:
    """The network as it is called in training, compiled at its first call for every new shape of a batch.

    The compiled network shares its weights with the one that was passed, whose names stay as they are.
    """
    # A recipe has few sizes; kernels for one size are faster than those for any.
    call: Callable[..., torch.Tensor] = torch.compile(network, dynamic=False)
    return call


def not_compiled(error: BaseException) -> SkinLesionError | None:
    """What to tell the user where torch could not compile the network; None for every other error."""
    # Importing it takes a second; where something was compiled, it is loaded already.
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    cause = getattr(error, "inner_exception", error)
    reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return SkinLesionError(
        f"torch could not compile the network: {reason.strip()}",
        "Omit --compile; or install what torch compiles with: Triton for a GPU, a C++ compiler for a CPU.",
    )
