"""Bytes from outside, made up and mutated: what reads them either understands them or raises its own error."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from skinlesion_cli.artifacts import envelope, external_predictions, tables
from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.data.reading import inputs
from skinlesion_cli.data.reading.archives import open_archive
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.sources import labels_csv
from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.errors import DataError, SkinLesionError

quick = settings(max_examples=150, deadline=5000, suppress_health_check=list(HealthCheck), derandomize=True)


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


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


PICTURES = [picture(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")]


@quick
@given(st.one_of(st.binary(max_size=200), mutated(PICTURES)))
def test_images(content: bytes) -> None:
    found = only_own_errors(lambda: read_image(content, max_pixels=1_000_000))
    if found is not None:
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert found.shape[2] == 3


def dicom_file() -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows = dataset.Columns = 40
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(256)) * 18 + bytes(192)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_dicom() -> None:
    pytest.importorskip("pydicom")
    from skinlesion_cli.data.reading.dicom import read_dicom

    whole = dicom_file()
    assert read_dicom(whole).shape == (40, 40, 3)
    # The header is where damage has consequences.
    header, pixels = whole[:-4800], whole[-4800:]

    @quick
    @given(st.one_of(st.binary(max_size=200), mutated([whole]), mutated([header]).map(lambda h: h + pixels)))
    def fuzz(content: bytes) -> None:
        only_own_errors(lambda: read_dicom(content, max_pixels=1_000_000))

    fuzz()


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


CSVS = [
    b"image,label,lesion_id,age\na.jpg,MEL,l1,45\nb.jpg,NV,l2,\n",
    b"image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\na,1,0,0,0,0,0,0\nb,0,1,0,0,0,0,0\n",
    b"id,p_MEL,p_NV,p_BCC,p_AKIEC,p_BKL,p_DF,p_VASC\na,0.4,0.1,0.1,0.1,0.1,0.1,0.1\n",
]
csv_content = st.one_of(
    st.binary(max_size=100),
    mutated(CSVS),
    st.text(alphabet='a,"\n\r\0;.é/=\\', max_size=60).map(lambda text: b"image,label\n" + text.encode()),
)


@pytest.mark.parametrize("content", [b"id,p\n001,0.5,9\n002,0.5,8\n", b"image,label\na,MEL,\nb,NV,\n"])
def test_rows_longer_than_the_header_never_shift_the_columns(content: bytes) -> None:
    with pytest.raises(DataError, match="more cells than its header"):
        tables.read_csv(content, "long.csv")


@quick
@given(csv_content)
def test_tables(content: bytes) -> None:
    only_own_errors(lambda: tables.read_csv(content, "fuzzed.csv"))
    in_file("fuzzed.csv", content, lambda path: labels_csv.read(path, SourceOptions()))
    in_file("fuzzed.csv", content, external_predictions.read_truth)
    in_file("fuzzed.csv", content, lambda path: external_predictions.read_predictions(path, None))


@quick
@given(st.one_of(st.binary(max_size=100), mutated([zipped(a=b"x" * 500, b=PICTURES[0])])))
def test_archives(content: bytes) -> None:
    def read(path: Path) -> list[str]:
        with open_archive(path) as archive:
            return [str(len(archive.read(name))) for name in archive.namelist()]

    in_file("fuzzed.zip", content, read)


YAMLS = [
    b"name: mine\nepochs: 3\nlearning_rate: 1e-3\nprogressive_sizes_px: [32, 64]\n",
    b"policy: guaranteed\ntargets:\n  MEL: {sensitivity: 0.85}\npriority: [MEL]\n",
]
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
@given(st.one_of(st.binary(max_size=80), mutated(YAMLS)))
def test_settings(content: bytes) -> None:
    in_file("r.yaml", content, lambda path: load_recipe(str(path), "tiny", environment={}))
    in_file("p.yaml", content, lambda path: load_policy(path))


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
