"""What several tests share: generated images, the real ones where they are, and the command line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import forking
from tests.support.limits import HANG_S
from tests.support.tiny_training import TINY

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))


# Tests with these start the command in a process of its own, or a browser, which takes seconds.
SLOW_FIXTURES = frozenset({"skinlesion", "program", "browser"})
# Tests in these train or export networks, start and kill processes, or build releases.
SLOW_PLACES = (
    *("cli/test_streams.py", "examples", "explain/test_localisation.py", "explain/test_runtimes.py"),
    *("faults/test_endless_inputs.py", "faults/test_interruptions.py", "faults/test_machine_limits.py"),
    *(
        "inference/test_graphs.py",
        "inference/test_edge_formats.py",
        "inference/test_exports_of_models.py",
        "inference/test_forked_processes.py",
        "inference/test_parity.py",
    ),
    "inference/test_graphs.py",
    *("inference/test_inexact_exports.py", "inference/test_sharing_out.py", "release/test_distribution.py"),
    *(
        "stages/test_packed_model.py",
        "test_bundled_model.py",
        "test_pipeline.py",
        "training/test_artefacts.py",
    ),
    *("training/test_backbones.py", "training/test_examples.py", "training/test_freezing.py"),
    *("training/test_loop.py", "training/test_memory.py", "training/test_processes.py"),
    "training/test_train_stage.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow by where they are and which fixtures they ask for."""
    places = [ROOT / "tests" / place for place in SLOW_PLACES]
    for item in items:
        in_slow_place = any(item.path == place or place in item.path.parents for place in places)
        if in_slow_place or SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_report_header() -> str:
    """The machine: what a worker that was killed for memory had to share."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"machine: {os.cpu_count()} cores, {memory_bytes / 2**30:.1f} GiB of memory"
    return f"machine: {os.cpu_count()} cores"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a worker of pytest-xdist died: a kill for lack of memory leaves no other trace."""
    if error is None:
        return
    reason = f"{error}"
    with contextlib.suppress(AttributeError, ValueError, subprocess.TimeoutExpired):
        code = node.gateway._io.popen.wait(10)
        reason += f", exit code {code}" if code >= 0 else f", ended by {signal.Signals(-code).name}"
    sys.stderr.write(f"\n{node.gateway.id}: {reason}\n")


@pytest.fixture(scope="session", autouse=True)
def empty_user_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What this user has exported must not decide which runtime a test runs with."""
    os.environ["SKINLESION_CACHE"] = str(tmp_path_factory.mktemp("user") / "cache")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ensemble of one tiny network with random weights. To be read, not changed."""
    from tests.support import tiny_models

    return tiny_models.make_workspace(tmp_path_factory.mktemp("tiny_model") / "ws", archs=("tiny",))


@pytest.fixture(scope="session")
def isic_folder() -> Path:
    """The real ISIC 2018 training set in its official layout; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SKINLESION_TEST_ISIC") or ROOT.parent / "shared" / "isic2018")
    if not (folder / "ISIC2018_Task3_Training_GroundTruth.csv").is_file():
        pytest.skip(f"no ISIC 2018 images at {folder} (set SKINLESION_TEST_ISIC)")
    return folder


@pytest.fixture(scope="session")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What version 0.1.0 wrote, made of generated images. Not to be changed.

    `workspace` (two folds of a tiny network, dataset, ensemble, calibration, quality gate, an evaluation, an
    unfinished training), `packed` (the same model with an adaptive calibration), `images`, and tables that
    were predicted on them: `of_workspace.csv`, `of_workspace.jsonl`, `of_packed.csv`, `shard1.csv`,
    `shard2.csv`.
    """
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "version_0_1.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """105 generated images of 70 lesions in the official layout, 96 x 72 pixels."""
    import make_images

    folder = tmp_path_factory.mktemp("generated")
    make_images.make(folder, 105, seed=1, width=96, height=72, official=True)
    return folder


@pytest.fixture(scope="session")
def trained_folder(skinlesion, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished workspace, made by the commands themselves. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("trained") / "folder"
    folder.mkdir()
    for arguments in (
        ("download", "--from", generated, "--split", "grouped"),
        ("train", *TINY, "--epochs", 2),
        ("ensemble",),
        ("calibrate", "--policy", "published"),
    ):
        done = skinlesion(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def command_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """Socket of the process that forks itself for every command; None where that cannot be.

    `SKINLESION_TEST_FORK=0` starts an interpreter for every command instead.
    """
    if not forking.AVAILABLE or os.environ.get("SKINLESION_TEST_FORK") == "0":
        yield None
        return
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="skinlesion") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking", f"{folder}/commands"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == b"ready\n"
        yield f"{folder}/commands"
        server.stdin.close()
        server.wait(HANG_S)


@pytest.fixture(scope="session")
def skinlesion(command_server: str | None):
    """Run the command as a user would, in a process of its own; returns the finished process."""

    def run(*arguments: object, cwd: Path | None = None, stdin: str = "", **environment: str):
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        variables = (
            os.environ
            | {"PYTHONPATH": paths, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
            | environment
        )
        words = [str(argument) for argument in arguments]
        # What the interpreter itself reads needs a new one.
        if command_server is None or any(name.startswith("PYTHON") for name in environment):
            return subprocess.run(
                [sys.executable, "-m", "skinlesion_cli", *words],
                cwd=cwd,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=HANG_S,
                env=variables,
            )
        with ExitStack() as files:
            given, out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write(stdin.encode())
            given.seek(0)
            streams = [stream.fileno() for stream in (given, out, err)]
            code = forking.call(command_server, words, str(cwd or Path.cwd()), variables, streams)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read().decode(), err.read().decode())

    return run
