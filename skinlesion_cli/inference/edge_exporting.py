"""Writing a network for a phone or another small device, compared with torch where its interpreter runs."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.edge_exports import SUFFIXES, EdgeExport
from skinlesion_cli.artifacts.files import replace_file
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.inference.exporting import MAX_BACC_DROP, Sample, accept, compared, n_compared
from skinlesion_cli.inference.runtimes.edge import EdgeRuntime, runs_here
from skinlesion_cli.progress import Reporter

# Interpreters of small devices add up in another order; no class is decided by so little.
PARITY = 1e-4


@dataclass(frozen=True)
class WrittenEdge:
    """`model` is the network's file or folder, `card` the artifact beside it.

    `size_bytes` is that of all files of the network. `figures`, of `exporting.compared`, is empty where the
    format does not run on this system.
    """

    model: Path
    card: Path
    size_bytes: int
    conversion_s: float
    figures: dict[str, Any]


def write_edge(
    checkpoint: Checkpoint, kind: str, folder: Path, compared_on: Sample | None, reporter: Reporter
) -> WrittenEdge:
    """Convert the network and compare it with torch; what `folder` held in this format is replaced then.

    Raises
    ------
    ArtifactError : a probability differs too much from torch's; nothing is written then.
    UsageError : the packages for the format are missing.
    """
    from skinlesion_cli.models.edge_export import export_edge
    from skinlesion_cli.models.network import restore_network

    name, figures = checkpoint.name, {}
    if checkpoint.artifact is None:
        raise ValueError("the checkpoint must be written before its export")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        made = Path(temporary) / f"{name}{SUFFIXES[kind]}"
        try:
            with reporter.task(f"exporting {name}", None):
                network = restore_network(checkpoint)
                started_s = time.perf_counter()
                export_edge(network, kind, checkpoint.preprocessing.input_size_px, made)
                conversion_s = time.perf_counter() - started_s
            if runs_here(kind):
                total = n_compared(compared_on)
                with reporter.task(f"comparing {name} with torch", total, unit="images") as task:
                    # In no variable: Windows moves no file that a runtime has open.
                    figures = compared(checkpoint, network, EdgeRuntime(made, kind), compared_on, task)
        except SkinLesionError:
            raise
        except Exception as error:  # every converter and every interpreter has exceptions of its own
            reason = (str(error).strip().splitlines() or [""])[0]
            raise SkinLesionError(
                f"{name} cannot be exported to {kind}: {type(error).__name__}: {reason}",
                "Use --format onnx.",
            ) from error
        if figures:
            accept(name, kind, figures, MAX_BACC_DROP, parity=PARITY)
        size_bytes = _put(Path(temporary), folder)
    model = folder / made.name
    card = folder / f"{name}.{kind}.json"
    EdgeExport.of_files(kind, model, figures, checkpoint.preprocessing).save(
        card, inputs={"checkpoint": checkpoint.artifact}
    )
    return WrittenEdge(model, card, size_bytes, conversion_s, figures)


def _put(source: Path, folder: Path) -> int:
    """Move all that lies in `source` into `folder`, over what is there; bytes of all files."""
    size_bytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        replace_file(path, target)
    return size_bytes
