"""A model that was loaded before a process was forked predicts in that process too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: that of the tests has threads of others. The child ends itself where it hangs.
_PREDICTS_IN_A_CHILD = """
import os, signal, sys
import numpy as np
from skinlesion_cli import Classifier

classifier = Classifier.load(sys.argv[1], device="cpu", runtime="torch")
image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
before = classifier.predict([image])[0]
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if classifier.predict([image])[0].decision == before.decision else 1)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on POSIX only")
def test_torch_predicts_in_a_forked_process(tmp_path: Path) -> None:
    from tests.support import tiny_models

    # Large enough for torch to compute one image on several threads.
    workspace = tiny_models.make_workspace(tmp_path / "ws", archs=("tiny",), size_px=128)
    done = subprocess.run(
        [sys.executable, "-c", _PREDICTS_IN_A_CHILD, str(workspace)],
        env=os.environ
        | {
            "OMP_NUM_THREADS": "2",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout == "0\n", done.stderr[-500:]
