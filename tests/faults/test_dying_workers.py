"""A process of the tests that is killed ends the run as red, and the run says which test and which signal."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

pytest.importorskip("xdist")
ROOT = Path(__file__).resolve().parents[2]
# Several files, so that others wait for the one that dies.
HARMLESS = "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_harmless(n): pass\n"
DYING = (
    "import os, signal, pytest\n"
    "@pytest.mark.parametrize('n', range(6))\n"
    "def test_dying(n):\n"
    "    if n == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no SIGKILL")
def test_the_run_ends_and_names_the_test_and_the_signal(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(HARMLESS)
    (tmp_path / "test_dying.py").write_text(DYING)
    # The hooks of these tests, without their fixtures.
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import pytest_report_header, pytest_testnodedown  # noqa\n"
    )
    (options,) = re.findall(r"^PARALLEL := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    chosen = shlex.split(options.replace("$(JOBS)", "2"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, *chosen, tmp_path],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "crashed while running" in done.stdout
    assert "test_dying[3]" in done.stdout
    assert "ended by SIGKILL" in done.stderr
    assert "GiB of memory" in done.stdout
