"""Structured mutations of archives, artifacts and tables."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import struct
import zipfile
from typing import Any

from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.config.schema import canonical_json
from tests.fuzzing.pictures import ODD_16, ODD_32, picture, scrambled

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_NAMES = (
    *(
        "../x.jpg",
        "/x.jpg",
        "C:/x.jpg",
        "a\\b.jpg",
        "x.jpg",
        "\x1b[31m.jpg",
        "=1.jpg",
        "a/" * 400 + "x.jpg",
        "",
    ),
    *(
        "._x.jpg",
        "__MACOSX/x.jpg",
        "x.dcm",
        "x.zip",
        "é\ud83e\udd80.jpg".encode("utf-16", "surrogatepass").decode("utf-16"),
        "x\0.jpg",
    ),
)


def archive(source: random.Random) -> bytes:
    """A zip with pictures whose headers, names or content were changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for number in range(source.randint(1, 3)):
            name = source.choice(_NAMES) if source.random() < 0.3 else f"in/{number}.jpg"
            body = source.choice(
                (picture("JPEG"), picture("PNG"), b"text", bytes(source.choice((1, 400_000))))
            )
            member = zipfile.ZipInfo(name or "x")
            member.compress_type = source.choice(_METHODS)
            member.external_attr = source.choice((0, 0o100644, 0o120777, 0o010600, 0o040755)) << 16
            made.writestr(member, body)
    content = bytearray(file.getvalue())
    for _ in range(source.randint(0, 3)):
        magic, fields = source.choice(
            (
                (
                    b"PK\x01\x02",
                    {8: 2, 10: 2, 16: 4, 20: 4, 24: 4, 28: 2, 30: 2, 32: 2, 38: 4, 42: 4, 46: 1, 47: 1},
                ),
                (b"PK\x03\x04", {6: 2, 8: 2, 14: 4, 18: 4, 22: 4, 26: 2, 28: 2, 30: 1, 31: 1}),
                (b"PK\x05\x06", {4: 2, 8: 2, 10: 2, 12: 4, 16: 4, 20: 2}),
            )
        )
        places = [i for i in range(len(content) - 3) if content[i : i + 4] == magic]
        if not places:
            break
        place, (offset, width) = source.choice(places), source.choice(list(fields.items()))
        start = place + offset
        if width == 4:
            value = struct.pack("<I", source.choice(ODD_32))
        elif width == 2:
            value = struct.pack("<H", source.choice((*ODD_16, 0x800, 12, 14, 95, 99)))
        else:
            value = source.choice((b"\xff", b"\x80", b"\0", b"/", b"\x1b"))
        content[start : start + width] = value
    if source.random() < 0.3:
        return scrambled(source, bytes(content))
    return bytes(content)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 2**31, 2**63, 10**30, 25_000_000, 1e308, "", "x", "NaN", "1"),
    *(
        "../../../elsewhere",
        "/dev/zero",
        "MEL",
        "identity",
        [],
        {},
        [[]],
        [None],
        {"x": 1},
        "\ud800",
        "\x1b[31m",
    ),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [p for key, inner in value.items() for p in _places(inner, (*path, key))]
    if isinstance(value, list):
        return found + [p for index, inner in enumerate(value[:6]) for p in _places(inner, (*path, index))]
    return found


def json_changed(source: random.Random, value: Any, times: int = 2) -> Any:
    """A copy of a JSON value in which some inner values are others, are gone or are there twice."""
    changed = json.loads(json.dumps(value))
    for _ in range(source.randint(1, times)):
        places = _places(changed)
        if not places:
            return changed
        *path, last = source.choice(places)
        inner = changed
        for key in path:
            inner = inner[key]
        what = source.choice(("other", "other", "other", "gone", "extra", "neighbour", "long"))
        if what == "gone":
            del inner[last]
        elif what == "extra" and isinstance(inner, dict):
            inner[source.choice(("extra", "name", "sha256"))] = source.choice(ODD_VALUES)
        elif what == "extra":
            inner.append(source.choice(ODD_VALUES))
        elif what == "long" and isinstance(inner[last], list):
            inner[last] = inner[last] * source.choice((0, 2, 1000))
        elif what == "neighbour":
            *_, key = source.choice(places)
            inner[last] = key
        else:
            inner[last] = source.choice(ODD_VALUES)
    return changed


def artifact(source: random.Random, original: bytes) -> bytes:
    """An artifact's JSON with other values, most often signed again, so that its hash is right."""
    if source.random() < 0.15:
        return scrambled(source, original)
    content = json.loads(original)
    content.pop("sha256")
    if source.random() < 0.8:
        content["body"] = json_changed(source, content["body"])
    else:
        content = json_changed(source, content)
    if not isinstance(content, dict):
        return json.dumps(content).encode()
    digest = "0" * 64
    if source.random() < 0.95:
        with contextlib.suppress(ValueError):
            digest = sha256_bytes(canonical_json(content))
    return json.dumps(content | {"sha256": digest}).encode()


_CELLS = (
    *(
        "",
        "NA",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1",
        "2",
        "0.5",
        "x",
        "=1+1",
        '"',
        "\0",
        "\x1b[31m",
        "é",
        "MEL",
        "a,b",
    ),
    *("1" * 400, "a\nb", "true", "../x", "001"),
)


def table(source: random.Random, original: bytes, separator: str = ",") -> bytes:
    """A CSV whose cells, rows or columns were changed."""
    if source.random() < 0.2:
        return scrambled(source, original)
    rows = list(csv.reader(io.StringIO(original.decode())))
    for _ in range(source.randint(1, 4)):
        row = source.choice(rows)
        what = source.choice(("cell", "cell", "cell", "gone", "extra", "row gone", "row twice", "header"))
        if what == "cell" and row:
            row[source.randrange(len(row))] = source.choice(_CELLS)
        elif what == "gone" and row:
            del row[source.randrange(len(row))]
        elif what == "extra":
            row.insert(source.randrange(len(row) + 1), source.choice(_CELLS))
        elif what == "row gone" and len(rows) > 1:
            rows.remove(row)
        elif what == "row twice":
            rows.append(list(row))
        elif what == "header" and rows[0]:
            rows[0][source.randrange(len(rows[0]))] = source.choice(
                (*_CELLS, "id", "label", "image", "p_MEL")
            )
    file = io.StringIO()
    csv.writer(
        file, delimiter=source.choice((separator, separator, ";", "\t")), lineterminator="\n"
    ).writerows(rows)
    encoding = source.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
    return file.getvalue().encode(encoding, "replace")


def json_lines(source: random.Random, original: bytes) -> bytes:
    """JSON lines in which one line was changed."""
    if source.random() < 0.2:
        return scrambled(source, original)
    lines = original.splitlines()
    index = source.randrange(len(lines))
    lines[index] = json.dumps(json_changed(source, json.loads(lines[index]))).encode()
    return b"\n".join(lines) + b"\n"
