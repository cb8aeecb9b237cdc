"""What is refused where class lists or labels do not fit, and what older artifacts are read as."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.class_list import StoredClassList, class_list_of, require_same_classes
from skinlesion_cli.artifacts.envelope import read_artifact
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.data.sources.registry import read_source
from skinlesion_cli.errors import ArtifactError, DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download import append
from skinlesion_cli.stages.download import stage as download
from skinlesion_cli.stages.ensemble import stage as ensemble
from skinlesion_cli.stages.ensemble.members import require_same
from skinlesion_cli.taxonomy.shipped import shipped
from tests.class_lists.conftest import isic2019_layout
from tests.support.class_lists import ISIC2018
from tests.support.command_line import run
from tests.support.tiny_datasets import jpeg

MELANOMA = shipped("melanoma")


def table_of(folder: Path, labels: list[str]) -> Path:
    rows = ["image,label"]
    for number, label in enumerate(labels):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
        rows.append(f"{number}.jpg,{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def test_labels_outside_the_list_are_named_with_what_to_do(tmp_path: Path) -> None:
    source = table_of(tmp_path, ["melanoma", "mole"] + [f"wart {number}" for number in range(7)])
    with pytest.raises(DataError) as refused:
        read_source(source, "auto", SourceOptions(classes=MELANOMA))
    assert "2.jpg ('wart 0')" in refused.value.message
    assert "6.jpg ('wart 4')" in refused.value.message
    assert "7.jpg" not in refused.value.message
    assert "7" in refused.value.message
    assert all(option in refused.value.hint for option in ("--map", "--classes"))


def test_the_same_labels_become_the_classes_of_the_list_that_is_asked_for(tmp_path: Path) -> None:
    source = table_of(tmp_path, ["melanoma", "Naevus", "actinic keratosis", "SCC"])
    read = {
        name: [
            record.label
            for record in read_source(source, "auto", SourceOptions(classes=shipped(name))).records
        ]
        for name in ("isic2018", "isic2019", "melanoma")
    }
    assert read == {
        "isic2018": ["MEL", "NV", "AKIEC"],  # SCC has no place there
        "isic2019": ["MEL", "NV", "AK", "SCC"],
        "melanoma": ["MEL", "OTHER", "OTHER", "OTHER"],
    }


@pytest.mark.parametrize(
    ("name", "options", "kept"),
    [("isic2019", {}, 64), ("isic2018", {}, 56), ("isic2018", {"scc_as_akiec": True}, 64)],
)
def test_isic_2019_keeps_its_eight_classes_in_its_own_list(
    name: str, options: dict, kept: int, tmp_path: Path
) -> None:
    folder, _ = isic2019_layout(tmp_path)
    records = read_source(folder, "auto", SourceOptions(classes=shipped(name), **options)).records
    assert len(records) == kept
    labels = {record.label for record in records}
    assert ("SCC" in labels, "AK" in labels, "AKIEC" in labels) == (
        (True, True, False) if name == "isic2019" else (False, False, True)
    )


def test_lists_that_differ_are_refused_with_both_named() -> None:
    require_same_classes({"one": ISIC2018, "two": shipped("isic2018")}, "")
    with pytest.raises(ArtifactError, match=r"one and three .* isic2018 \(.*\), and melanoma \(MEL, OTHER\)"):
        require_same_classes({"one": ISIC2018, "two": ISIC2018, "three": MELANOMA}, "")


def test_members_of_different_lists_make_no_ensemble() -> None:
    table = pd.DataFrame({"id": ["a"], "lesion_id": ["a"], "label": ["MEL"], "fold": [""]})
    members = [
        Predictions(
            table,
            np.full((1, 1, classes.n_classes), 1 / classes.n_classes, np.float32),
            ("identity",),
            source=f"of {classes.name}",
            part="val",
            classes=classes,
        )
        for classes in (ISIC2018, MELANOMA)
    ]
    with pytest.raises(ArtifactError, match="of isic2018 and of melanoma have different class lists"):
        require_same(members)


def test_an_envelope_without_a_list_is_that_of_isic_2018_and_stays_without(tmp_path: Path) -> None:
    for classes in (ISIC2018, MELANOMA):
        StoredClassList(classes).save(tmp_path / f"{classes.name}.json")
        read = read_artifact(tmp_path / f"{classes.name}.json", kind="classes", schema_version=1)
        assert read.classes == classes
    stored = json.loads((tmp_path / "isic2018.json").read_text())
    assert "classes" not in stored
    assert stored["class_order"] == ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    assert json.loads((tmp_path / "melanoma.json").read_text())["class_order"] == ["MEL", "OTHER"]


def test_a_list_that_does_not_fit_its_order_is_refused(tmp_path: Path) -> None:
    StoredClassList(MELANOMA).save(tmp_path / "classes.json")
    stored = json.loads((tmp_path / "classes.json").read_text())
    (tmp_path / "classes.json").write_text(json.dumps(stored | {"class_order": ["OTHER", "MEL"]}))
    with pytest.raises(ArtifactError, match=r"class order \['OTHER', 'MEL'\]"):
        StoredClassList.load(tmp_path / "classes.json")


def test_append_keeps_the_list_of_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    settings = download.DownloadSettings(
        workspace=tmp_path / "ws",
        source=table_of(tmp_path / "first", ["melanoma", "nevus", "other"] * 3),
        split="grouped",
        classes="melanoma",
    )
    download.run(settings, SilentReporter())
    (tmp_path / "second" / "new.jpg").write_bytes(jpeg(99))
    (tmp_path / "second" / "labels.csv").write_text("image,label\nnew.jpg,seborrheic keratosis\n")
    more = {"source": tmp_path / "second" / "labels.csv", "split": "official", "classes": None}
    with pytest.raises(ArtifactError, match="isic2018"):
        append.run(settings.model_copy(update={**more, "classes": "isic2018"}), SilentReporter())
    append.run(settings.model_copy(update=more), SilentReporter())
    manifest = Manifest.load(Workspace(tmp_path / "ws").manifest)
    assert manifest.class_counts == {"MEL": 3, "OTHER": 7}
    assert class_list_of(Workspace(tmp_path / "ws")) == MELANOMA


def test_an_unknown_list_is_refused_and_a_shipped_one_is_printed(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        download.class_list(str(tmp_path / "none.yaml"))
    printed = run("download", "--show-classes", "melanoma")
    assert printed.exit_code == 0
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    assert download.class_list(str(tmp_path / "mine.yaml")) == MELANOMA


def test_an_ensemble_of_tables_sums_a_finer_model_along_its_parents(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    StoredClassList(MELANOMA).save(workspace.classes)
    (tmp_path / "truth.csv").write_text("id,label\na,melanoma\nb,nevus\n")
    (tmp_path / "seven.csv").write_text(
        "id,p_MEL,p_NV,p_BCC,p_AKIEC,p_BKL,p_DF,p_VASC\na,0.5,0.25,0.25,0,0,0,0\nb,0.25,0.25,0.25,0.25,0,0,0\n"
    )
    (tmp_path / "two.csv").write_text("id,p_MEL,p_OTHER\na,0.75,0.25\nb,0.25,0.75\n")
    result = ensemble.run(
        ensemble.EnsembleSettings(
            workspace=workspace.root,
            tables=(tmp_path / "seven.csv", tmp_path / "two.csv"),
            truth=tmp_path / "truth.csv",
            method="equal",
            export=False,
        ),
        SilentReporter(),
    )
    assert any("seven" in warning and "OTHER of melanoma" in warning for warning in result.warnings)
    stored = Predictions.load(workspace.ensemble_predictions("val"))
    assert stored.classes == MELANOMA
    # (0.5 + 0.75) / 2 and (0.25 + 0.25) / 2
    np.testing.assert_allclose(stored.probabilities, [[0.625, 0.375], [0.25, 0.75]], atol=1e-6)
    (tmp_path / "seven_of_two.csv").write_text("id,p_BEN,p_MAL\na,0.5,0.5\nb,0.5,0.5\n")
    with pytest.raises(DataError, match="malignancy"):
        ensemble.run(
            ensemble.EnsembleSettings(
                workspace=workspace.root,
                tables=(tmp_path / "seven_of_two.csv",),
                truth=tmp_path / "truth.csv",
                export=False,
            ),
            SilentReporter(),
        )
