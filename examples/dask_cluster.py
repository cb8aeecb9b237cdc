"""Predict on a dask cluster, and see that it writes the bytes that one process writes.

    python examples/dask_cluster.py ./images --model builtin

Starts a scheduler and two workers on this machine. On a real cluster, start `dask scheduler` on one machine
and `dask worker tcp://HOST:8786` on the others, all with this package installed and the same images and model
at the same paths, and give `skinlesion predict` the address: nothing else is different. Needs `pip install
'skinlesion[dask]'`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from distributed import LocalCluster


def predict(output: Path, arguments: list[str]) -> None:
    """Run `skinlesion predict`, and stop here if it fails; images that could not be read have their rows."""
    command = [sys.executable, "-m", "skinlesion_cli", "predict", "--output", str(output), *arguments]
    code = subprocess.run(command).returncode
    if code not in (0, 3):
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dask-workers", type=int, default=2, help="workers to start (default 2)")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        shared, alone = Path(folder) / "cluster.csv", Path(folder) / "alone.csv"
        # Each worker runs one thread: the cores are shared out already.
        with LocalCluster(
            n_workers=options.dask_workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster:
            predict(shared, [*arguments, "--backend", "dask", "--address", cluster.scheduler_address])
        predict(alone, arguments)
        if shared.read_bytes() != alone.read_bytes():
            sys.exit("the cluster and one process wrote different tables")
        rows = len(shared.read_text(encoding="utf-8").splitlines()) - 1
    print(f"{rows} rows: {options.dask_workers} dask workers and one process wrote the same bytes")


# Worker processes import this file again.
if __name__ == "__main__":
    main()
