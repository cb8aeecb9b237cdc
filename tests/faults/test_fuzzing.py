"""Bytes from outside, made up and mutated: what reads them either understands them or raises its own error.

`tests/fuzzing` changes the structure of files, for as long as one likes (`make fuzz SECONDS=3600`); here it
runs for a moment, and longer under the mark `slow`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skinlesion_cli.artifacts import envelope, tables
from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.data.reading import inputs
from skinlesion_cli.errors import DataError, SkinLesionError
from tests.fuzzing.targets import TARGETS
from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]

quick = settings(max_examples=150, deadline=5000, suppress_health_check=list(HealthCheck), derandomize=True)


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the originals with bytes overwritten, a piece cut out, or a piece put in."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        what = draw(st.sampled_from(["write", "cut", "insert", "end"]))
        piece = draw(st.binary(min_size=1, max_size=8))
        if what == "write":
            content[place : place + len(piece)] = piece
        elif what == "cut":
            del content[place : place + draw(st.integers(1, 40))]
        elif what == "insert":
            content[place:place] = piece
        else:
            del content[place:]
    return bytes(content)


def only_own_errors(read: Callable[[], object]) -> object | None:
    """What was read, or None where it was refused; any other exception is a defect."""
    try:
        return read()
    except SkinLesionError as error:
        return None if error.message else pytest.fail("an error without a message")


def in_file(name: str, content: bytes, read: Callable[[Path], object]) -> object | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return only_own_errors(lambda: read(path))


def in_own_process(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A decoder that crashes must not end these tests."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


def fuzzed(report: Path, *arguments: object) -> dict[str, Any]:
    """The findings of the fuzzer in a process of its own."""
    done = in_own_process("tests.fuzzing.run", "--json", report, *arguments)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(report.read_text("utf-8"))


@pytest.fixture(scope="module")
def short_findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    report = tmp_path_factory.mktemp("fuzzed") / "findings.json"
    return fuzzed(report, "--seconds", HANG_S / 2, "--most", 15)


@pytest.mark.parametrize("name", TARGETS)
def test_readers_of_what_comes_from_outside(name: str, short_findings: dict[str, Any]) -> None:
    assert short_findings["executions"][name] >= 10
    assert {key: text for key, text in short_findings["defects"].items() if key.startswith(f"{name}:")} == {}


@pytest.mark.slow
def test_readers_for_a_while(tmp_path: Path) -> None:
    """SKINLESION_FUZZ_SECONDS says for how long, at most five minutes;
    other seeds than the short test above.
    """
    seconds = min(300.0, float(os.environ.get("SKINLESION_FUZZ_SECONDS", "30")))
    findings = fuzzed(tmp_path / "findings.json", "--seconds", seconds, "--seed", 1)
    assert sum(findings["executions"].values()) > 100
    assert findings["defects"] == {}


def test_the_fuzzer_finds_what_is_not_its_own_error_and_what_takes_too_much() -> None:
    done = in_own_process("tests.support.fuzzer_checks")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    said = {"fails": "KeyError: 'odd'", "hangs": "took more than", "grows": "the process grew by"}
    for name, words in said.items():
        (shown,) = found[name]["defects"].values()
        assert words in shown
    assert found["refuses"]["defects"] == {}
    assert found["refuses"]["refused"] == found["refuses"]["executions"] == {"refuses": 3}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("artifact") / "made.json"
    envelope.write_artifact(path, kind="made", schema_version=1, body={"value": [1.5, "a", None]})
    return path.read_bytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(data=st.data())
def test_artifacts(stored: bytes, data: st.DataObject) -> None:
    keys = list(json.loads(stored))
    content = data.draw(
        st.one_of(
            st.binary(max_size=200),
            mutated([stored]),
            json_values.map(lambda value: json.dumps(value).encode()),
            st.builds(
                lambda key, value: json.dumps(json.loads(stored) | {key: value}).encode(),
                st.sampled_from(keys),
                json_values,
            ),
        )
    )
    found = in_file(
        "made.json", content, lambda path: envelope.read_artifact(path, kind="made", schema_version=1)
    )
    if found is not None:
        # Only what means the same as the original passes.
        assert json.loads(content) == json.loads(stored)


def test_weights() -> None:
    import torch

    from skinlesion_cli.models.network import load_weights, weights_to_bytes

    network = torch.nn.Linear(3, 2)
    whole = weights_to_bytes(network)

    @quick
    @given(st.one_of(st.binary(max_size=100), mutated([whole])))
    def fuzz(content: bytes) -> None:
        only_own_errors(lambda: load_weights(network, content, "fuzzed"))
        assert all(bool(values.isfinite().all()) for values in network.state_dict().values())

    fuzz()


@pytest.mark.parametrize("content", [b"id,p\n001,0.5,9\n002,0.5,8\n", b"image,label\na,MEL,\nb,NV,\n"])
def test_rows_longer_than_the_header_never_shift_the_columns(content: bytes) -> None:
    with pytest.raises(DataError, match="more cells than its header"):
        tables.read_csv(content, "long.csv")


HOSTILE_YAML = [
    b"!!python/object/apply:os.system ['exit 1']",
    b"epochs: 2001-99-99",
    b"a: &a [*a]",
    b"[" * 600,
    b"? [a]\n: b",
    b"? {a: b}\n: c",
    b"epochs: !!int x",
    b"epochs: !!float ''",
    b"epochs: !!timestamp x",
    b"epochs: 0b",
    b"1: 2\n",
    b"~: 2\n",
    b"epochs: .nan\n",
    b"\xff\xfe",
    b"\0",
]


@pytest.mark.parametrize("content", HOSTILE_YAML, ids=[str(n) for n in range(len(HOSTILE_YAML))])
def test_hostile_settings(content: bytes) -> None:
    in_file("r.yaml", content, lambda path: load_recipe(str(path), "tiny", environment={}))
    in_file("p.yaml", content, lambda path: load_policy(path))
    text = content.decode("latin-1")
    only_own_errors(lambda: load_recipe("fast", "tiny", settings=[f"epochs={text}"], environment={}))
    only_own_errors(lambda: load_recipe("fast", "tiny", environment={"SKINLESION_RECIPE_EPOCHS": text}))


@quick
@given(st.one_of(st.binary(max_size=120), st.binary(max_size=5).map(lambda b: b * 1000)))
def test_lists(content: bytes) -> None:
    def read(path: Path) -> None:
        for found in inputs.expand([f"@{path}"]):
            assert found.id.isprintable()
            # Where random bytes name a folder, such as `/`, nothing below it is for this test to read.
            if not found.path.is_absolute():
                only_own_errors(lambda source=found: inputs.load(source))

    harmless = content.replace(b"/", b"_").replace(b".", b"_").replace(b"~", b"_")
    in_file("list.txt", harmless, read)
