"""Readers of what comes from outside, each with what it is fed:
`TARGETS` maps a name to a function of random choices.

A target makes one mutated input and reads it. It returns what was read, or raises a `SkinLesionError`;
anything else that it raises is a defect.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts import (
    envelope,
    external_predictions,
    external_truth,
    own_files,
    prediction_file,
)
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.training_images import StoredTrainingImages
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.load import load_recipe
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.data.reading import inputs
from skinlesion_cli.data.reading.archives import open_archive
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.sources import labels_csv
from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.decisions.fingerprints import FingerprintSet
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.inference.prediction import Prediction
from skinlesion_cli.inference.summary import Tally
from tests.fuzzing import containers, pictures
from tests.support.class_lists import ISIC2018, TABLE

Target = Callable[[random.Random], object]
MAX_PIXELS = 1_000_000


@contextmanager
def file_of(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def _checked(image: np.ndarray) -> np.ndarray:
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.shape[0] * image.shape[1] <= MAX_PIXELS
    return image


def _picture(kind: str, source: random.Random) -> object:
    content = pictures.PICTURES[kind](source)
    if source.random() < 0.5:
        return _checked(read_image(content, max_pixels=MAX_PIXELS))
    with file_of(f"x.{kind}", content) as path:
        return _checked(read_image(path, max_pixels=MAX_PIXELS, target_px=source.choice((None, 16))))


def dicom(source: random.Random) -> object:
    from skinlesion_cli.data.reading.dicom import count_frames, decode_dicom

    content = pictures.dicom(source)
    frames = count_frames(content)
    frame = source.randint(1, max(1, min(frames, 3)))
    return _checked(decode_dicom(content, max_pixels=MAX_PIXELS, frame=frame).pixels)


def named_input(source: random.Random) -> object:
    """A picture or archive of any kind under a name of any kind, as `predict FOLDER` finds it."""
    kind = source.choice((*pictures.PICTURES, "zip"))
    content = containers.archive(source) if kind == "zip" else pictures.PICTURES[kind](source)
    suffix = kind if source.random() < 0.8 else source.choice(("jpg", "png", "dcm", "zip", "tif", "txt"))
    with file_of(f"x.{suffix}", content) as path:
        read, refused = [], []
        for found in inputs.expand([source.choice((str(path), str(path.parent)))]):
            assert found.id.isprintable()
            try:
                read.append(_checked(inputs.load(found, max_pixels=MAX_PIXELS).pixels).shape)
            except SkinLesionError as error:
                refused.append(error)
        return read, refused


def archive(source: random.Random) -> object:
    with file_of("x.zip", containers.archive(source)) as path, open_archive(path) as opened:
        return [len(opened.read(name)) for name in opened.namelist()]


def name_list(source: random.Random) -> object:
    """A list of names, none of which is there."""
    content = source.choice(
        (
            b"\n".join(source.randbytes(source.randint(0, 20)) for _ in range(5)),
            source.randbytes(4) * source.choice((1, 50_000)),
            b"\xff\xfe" + "a.jpg\nb.jpg\n".encode("utf-16-le"),
            b"a.jpg\0b\n.jpg\0",
        )
    )
    # Names that could lead out of the folder are not for this target.
    content = content.translate(bytes.maketrans(b"/.~*?[@", b"_______"))
    with file_of("list.txt", content) as path:
        return [found.id for found in inputs.expand([f"@{path}"])]


@functools.cache
def _originals() -> dict[str, bytes]:
    """The files of a small finished workspace by their relative path."""
    from tests.support import tiny_models

    with tempfile.TemporaryDirectory() as folder:
        root = tiny_models.make_workspace(Path(folder) / "ws", archs=("tiny",))
        (member,) = Bundle.load(Workspace(root)).members
        assert member.artifact is not None
        codes = np.arange(64, dtype=np.uint8).reshape(2, 32)
        seen = StoredTrainingImages(FingerprintSet(codes), 2, (member.artifact.sha256,))
        seen.save(Workspace(root).training_images)
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def model(source: random.Random) -> object:
    """A packed model whose JSON files were changed and signed again, so that only their content is wrong."""
    files = dict(_originals())
    names = [name for name in files if name.endswith(".json")]
    changed = source.choice(names)
    files[changed] = containers.artifact(source, files[changed])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "ws"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        _sign_what_was_made_from(root, changed, files)
        return Bundle.load(Workspace(root)).sha256


def _sign_what_was_made_from(root: Path, changed: str, before: dict[str, bytes]) -> None:
    """Let the other artifacts name the changed one as what they were made from."""
    try:
        new = json.loads((root / changed).read_bytes())["sha256"]
    except (ValueError, KeyError, TypeError):
        return
    if not isinstance(new, str):
        return
    old = json.loads(_originals()[changed])["sha256"]
    for name in sorted(before):
        path = root / name
        if name == changed or path.suffix != ".json" or old not in path.read_text():
            continue
        content = json.loads(path.read_text().replace(old, new))
        own = content.pop("sha256")
        signed = envelope.sha256_bytes(envelope.canonical_json(content))
        path.write_text(json.dumps(content | {"sha256": signed}))
        for other in root.rglob("*.json"):
            if other != path and own in other.read_text():
                inner = json.loads(other.read_text().replace(own, signed))
                inner.pop("sha256")
                other.write_text(
                    json.dumps(inner | {"sha256": envelope.sha256_bytes(envelope.canonical_json(inner))})
                )


@functools.cache
def _rows() -> dict[str, bytes]:
    """A table of predictions of three images, in every format that can be written."""
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages.predict import stage
    from skinlesion_cli.stages.predict.settings import PredictSettings
    from tests.support import tiny_models

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in _originals().items():
            (root / "ws" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "ws" / name).write_bytes(content)
        tiny_models.make_images(root / "in", 3)
        tables = {}
        for kind in ("csv", "jsonl", "parquet"):
            output = root / f"p.{kind}"
            try:
                stage.run(
                    PredictSettings(workspace=root / "ws", inputs=(str(root / "in"),), output=output),
                    SilentReporter(),
                )
            except SkinLesionError:  # Parquet without pyarrow
                continue
            tables[kind] = output.read_bytes()
        shutil.rmtree(root / "ws")
        return tables


def prediction_table(source: random.Random) -> object:
    kind = source.choice(list(_rows()))
    original = _rows()[kind]
    if kind == "csv":
        content = containers.table(source, original)
    elif kind == "jsonl":
        content = containers.json_lines(source, original)
    else:
        content = pictures.scrambled(source, original)
    with file_of(f"p.{kind}", content) as path:
        own_files.is_prediction_table(path)
        tally = Tally(ISIC2018.codes)
        for row in prediction_file.read_rows(path, kind, TABLE):
            tally.add(Prediction.from_row(row))
        return tally.figures()


def predictions_of_others(source: random.Random) -> object:
    original = source.choice((*_CSVS, _rows()["csv"]))
    with file_of("p.csv", containers.table(source, original)) as path:
        return external_predictions.read_predictions(path, None, classes=ISIC2018)


def truth(source: random.Random) -> object:
    with file_of("t.csv", containers.table(source, source.choice(_CSVS))) as path:
        return external_truth.read_truth(path, classes=ISIC2018)


def own_labels(source: random.Random) -> object:
    with file_of("l.csv", containers.table(source, source.choice(_CSVS))) as path:
        return labels_csv.read(path, SourceOptions(classes=ISIC2018))


_CSVS = (
    b"image,label,lesion_id,age\na.jpg,MEL,l1,45\nb.jpg,NV,l2,\n",
    b"image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\na,1,0,0,0,0,0,0\nb,0,1,0,0,0,0,0\n",
    b"id,p_MEL,p_NV,p_BCC,p_AKIEC,p_BKL,p_DF,p_VASC,label\na,0.4,0.1,0.1,0.1,0.1,0.1,0.1,NV\n",
)
_YAMLS = (
    b"name: mine\nepochs: 3\nlearning_rate: 1e-3\nprogressive_sizes_px: [32, 64]\n",
    b"policy: guaranteed\ntargets:\n  MEL: {sensitivity: 0.85}\npriority: [MEL]\n",
)


def settings_file(source: random.Random) -> object:
    content = pictures.scrambled(source, source.choice(_YAMLS))
    with file_of("s.yaml", content) as path:
        if source.random() < 0.5:
            return load_policy(path)
        return load_recipe(str(path), "tiny", environment={})


TARGETS: dict[str, Target] = {
    "jpeg": functools.partial(_picture, "jpg"),
    "png": functools.partial(_picture, "png"),
    "tiff": functools.partial(_picture, "tif"),
    "other pictures": functools.partial(_picture, "gif"),
    "dicom": dicom,
    "named input": named_input,
    "zip": archive,
    "list": name_list,
    "packed model": model,
    "prediction table": prediction_table,
    "predictions of others": predictions_of_others,
    "truth": truth,
    "labels": own_labels,
    "settings": settings_file,
}
