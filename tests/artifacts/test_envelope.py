"""The envelope: round trip, tampering, atomic replacement."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from skinlesion_cli.artifacts import envelope
from skinlesion_cli.artifacts.envelope import read_artifact, write_artifact
from skinlesion_cli.artifacts.files import atomic_file, exclusive, sha256_bytes
from skinlesion_cli.errors import ArtifactError, SkinLesionError


def write(path: Path, **changes):
    values = {
        "kind": "demo",
        "schema_version": 1,
        "body": {"answer": 42},
        "payloads": {"table": (".csv", b"id\nNA\n")},
        "inputs": {"manifest": "ab" * 32},
        "seed": 7,
    }
    return write_artifact(path, **(values | changes))


def read(path: Path, kind: str = "demo", schema_version: int = 1):
    return read_artifact(path, kind=kind, schema_version=schema_version)


def rewrite(path: Path, *, resign: bool, **changes) -> None:
    """Alter the envelope by hand; with `resign` its own hash is made to fit again."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    if resign:
        content.pop("sha256")
        content["sha256"] = sha256_bytes(envelope.canonical_json(content))
    path.write_text(json.dumps(content), encoding="utf-8")


def test_round_trip(tmp_path):
    written = write(tmp_path / "a.json")
    found = read(tmp_path / "a.json")
    assert found == written
    assert found.body == {"answer": 42}
    assert found.payloads["table"].read_bytes() == b"id\nNA\n"
    assert found.inputs == {"manifest": "ab" * 32}
    assert found.seed == 7
    assert found.made_with["skinlesion"]


def test_same_content_same_bytes(tmp_path):
    first, second = write(tmp_path / "1" / "a.json"), write(tmp_path / "2" / "a.json")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_payload_is_named_by_its_hash_and_the_old_one_goes(tmp_path):
    write(tmp_path / "a.json")
    write(tmp_path / "a.json", payloads={"table": (".csv", b"new")})
    # sha256(b"new") begins with 11507a0e2f5e.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.table-11507a0e2f5e.csv"]


def test_altered_body_is_refused(tmp_path):
    write(tmp_path / "a.json")
    rewrite(tmp_path / "a.json", resign=False, body={"answer": 43})
    with pytest.raises(ArtifactError, match="was altered"):
        read(tmp_path / "a.json")


def test_altered_payload_is_refused(tmp_path):
    made = write(tmp_path / "a.json")
    made.payloads["table"].write_bytes(b"id\nXX\n")
    with pytest.raises(ArtifactError, match="is damaged"):
        read(tmp_path / "a.json")


def test_missing_payload_is_refused(tmp_path):
    made = write(tmp_path / "a.json")
    made.payloads["table"].unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read(tmp_path / "a.json")


def test_payload_outside_the_folder_is_refused(tmp_path):
    write(tmp_path / "in" / "a.json")
    (tmp_path / "secret").write_bytes(b"x")
    record = {"file": "../secret", "sha256": sha256_bytes(b"x"), "bytes": 1}
    rewrite(tmp_path / "in" / "a.json", resign=True, payloads={"table": record})
    with pytest.raises(ArtifactError, match=r"payloads\.table\.file: .* plain name"):
        read(tmp_path / "in" / "a.json")


def test_other_class_order_names_both(tmp_path):
    write(tmp_path / "a.json")
    rewrite(tmp_path / "a.json", resign=True, class_order=["NV", "MEL"])
    with pytest.raises(ArtifactError, match=r"\['NV', 'MEL'\].*\['MEL', 'NV', 'BCC'"):
        read(tmp_path / "a.json")


def test_other_kind_names_both(tmp_path):
    write(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="kind demo, but split is needed"):
        read(tmp_path / "a.json", kind="split")


def test_newer_schema_is_refused(tmp_path):
    write(tmp_path / "a.json", schema_version=3)
    with pytest.raises(ArtifactError, match=r"schema version 3.*up to 2"):
        read(tmp_path / "a.json", schema_version=2)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "demo"}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_artifact_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("payloads", [None, [], {"t": 1}, {"t": {}}, {"t": {"file": None, "sha256": 1}}])
def test_malformed_payload_records_are_refused(tmp_path, payloads):
    write(tmp_path / "a.json")
    rewrite(tmp_path / "a.json", resign=True, payloads=payloads)
    with pytest.raises(ArtifactError):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".pth", ".pt", ".ckpt"])
def test_pickles_are_refused_unread(tmp_path, suffix):
    victim = tmp_path / "victim"
    file = tmp_path / f"model{suffix}"
    # A pickle that would create the file `victim` when loaded.
    file.write_bytes(b"cos\nsystem\n(S'touch " + str(victim).encode() + b"'\ntR.")
    with pytest.raises(ArtifactError, match="can run code"):
        read(file)
    assert not victim.exists()


def test_missing_artifact_gives_the_hint(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        read_artifact(tmp_path / "a.json", kind="split", schema_version=1, hint="Run download.")
    assert caught.value.hint == "Run download."
    assert caught.value.exit_code == 4


def test_require_input_names_both(tmp_path):
    source = write(tmp_path / "source.json", body={})
    made = write(tmp_path / "made.json", inputs={"manifest": source})
    made.require_input("manifest", source)
    other = write(tmp_path / "other.json", body={"answer": 1})
    with pytest.raises(ArtifactError, match=f"{source.sha256[:12]}.*{other.sha256[:12]}"):
        made.require_input("manifest", other)


def test_nan_cannot_be_stored(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "a.json", body={"bacc": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_failed_write_leaves_the_old_artifact(tmp_path, monkeypatch):
    before = write(tmp_path / "a.json")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SkinLesionError, match="No space left"):
        write(tmp_path / "a.json", body={"answer": 0})
    monkeypatch.undo()
    assert read(tmp_path / "a.json") == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_interruption_leaves_no_file(tmp_path):
    def half():
        with atomic_file(tmp_path / "a.csv", "w") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert list(tmp_path.iterdir()) == []


def test_second_run_is_told_who_holds_the_folder(tmp_path):
    with (
        exclusive(tmp_path, "train"),
        pytest.raises(SkinLesionError, match=f"process {os.getpid()}"),
        exclusive(tmp_path, "train"),
    ):
        pass
    with exclusive(tmp_path, "train"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_gets_the_permissions_of_new_files_without_a_change_of_the_umask(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as context:
            # Threads share it: what another thread creates meanwhile would be writable for everybody.
            context.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
            with atomic_file(tmp_path / "a.png") as file:
                file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
