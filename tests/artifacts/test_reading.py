"""Files from others: only regular ones are opened, within a bound; headers of tensors are checked first."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from skinlesion_cli.artifacts import reading
from skinlesion_cli.artifacts.reading import read_regular, sha256_regular
from skinlesion_cli.artifacts.tensors import load_float32, read_header
from skinlesion_cli.errors import ArtifactError

# Of the three letters `abc`, from the examples of FIPS 180-2.
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

posix = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as on POSIX")


def test_a_regular_file_is_read_and_hashed_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert read_regular(file, 3) == b"abc"
    assert sha256_regular(file, 3) == SHA256_OF_ABC
    for read in (read_regular, sha256_regular):
        with pytest.raises(ArtifactError, match="3 bytes, which is too large: at most 2"):
            read(file, 2)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none", 2)
        with pytest.raises(FileNotFoundError):
            read(file / "below-a-file", 2)


@posix
def test_links_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "link": "a link",
        "device": "a link",
        "folder": "not a regular file",
        "pipe": "not a regular",
    }.items():
        with pytest.raises(ArtifactError, match=reason):
            read_regular(tmp_path / name, 10)


@posix
def test_links_of_an_installer_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").write_bytes(b"abc")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "file").symlink_to(tmp_path / "store")
    monkeypatch.setattr(reading, "_PACKAGE_FOLDER", tmp_path / "package")
    assert read_regular(tmp_path / "package" / "file", 3) == b"abc"


def test_a_header_says_what_the_tensors_are() -> None:
    content = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int64)}, metadata={"made": "here"})
    header = read_header(content, "x")
    assert {name: (info.dtype, info.shape) for name, info in header.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("I64", (4,)),
    }


def with_header(text: bytes, data: bytes = b"1234") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (1 << 40).to_bytes(8, "little") + b"{}",
        with_header(b"[]"),
        with_header(b"{"),
        with_header(b'{"a": 1}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [1]}}'),
        with_header(b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": 4, "shape": [1], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [25000000], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,1], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}'),
    ],
)
def test_a_header_that_lies_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="x is not a safetensors file"):
        read_header(content, "x")


def test_tensors_have_the_expected_names_types_and_shapes() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert load_float32(save({"a": values}), {"a": (2, 3), "b": (1,)}, "x")["a"].tolist() == values.tolist()
    for tensors, reason in (
        ({"c": values}, "unknown tensor 'c'"),
        ({"a": values.T.copy()}, r"shape \(3, 2\), expected F32 and \(2, 3\)"),
        ({"a": values.astype(np.float64)}, "type F64"),
    ):
        with pytest.raises(ArtifactError, match=reason):
            load_float32(save(tensors), {"a": (2, 3)}, "x")


def test_tensors_beyond_the_end_of_the_file_are_refused() -> None:
    content = with_header(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}')
    with pytest.raises(ArtifactError, match="x cannot be read"):
        load_float32(content, {"a": (2,)}, "x")
