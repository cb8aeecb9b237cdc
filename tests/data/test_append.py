"""A second dataset joins the first: folds for new lesions, nothing that was there moves, names that clash."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.cli.app import app
from tests.support import tiny_datasets

pytestmark = pytest.mark.command_line


def command(*arguments: object) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    printed = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return done.exit_code, printed, " ".join(done.output.replace("\\n", " ").split())


def load(root: Path) -> tuple[Manifest, Split, dict[str, tuple[str, str]]]:
    manifest = Manifest.load(Workspace(root).manifest)
    split = Split.load(Workspace(root).split, manifest)
    sides = {row.id: (row.part, row.fold) for row in split.table.itertuples()}
    return manifest, split, sides


def own_dataset(
    folder: Path, rows: list[str], header: str = "image,label,lesion_id", first: int = 1000
) -> Path:
    folder.mkdir(parents=True)
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    for number, row in enumerate(rows):
        (folder / row.split(",")[0]).write_bytes(tiny_datasets.jpeg(first + number))
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """28 images of 14 lesions (2 per class) in two folds."""
    source = tiny_datasets.write_official(tmp_path / "isic")
    code, _, text = command(
        "download", "--from", source, "--split", "kfold", "--folds", 2, "-w", tmp_path / "w", "--quiet"
    )
    assert code == 0, text
    return tmp_path / "w"


def test_new_lesions_get_a_fold_each_by_class_and_nothing_moves(workspace, tmp_path):
    _, _, before = load(workspace)
    rows = [f"m{n}.jpg,melanoma,M{n // 2}" for n in range(8)] + [f"n{n}.jpg,nevus,N{n}" for n in range(12)]
    code, printed, _ = command(
        "download", "--from", own_dataset(tmp_path / "clinic", rows), "--append", "-w", workspace, "--json"
    )
    assert code == 0
    manifest, _, after = load(workspace)
    assert {identity: after[identity] for identity in before} == before
    new = manifest.table[manifest.table["source"] == "clinic"]
    folds = Counter((row.label, after[row.id]) for row in new.itertuples())
    assert folds == {
        ("MEL", ("train", "0")): 4,
        ("MEL", ("train", "1")): 4,
        ("NV", ("train", "0")): 6,
        ("NV", ("train", "1")): 6,
    }
    figures = printed["figures"]
    assert (figures["added"], figures["already_there"], figures["images"]) == (20, 0, 48)
    assert figures["sources"] == {"clinic": 20, "isic2018": 28}
    code, printed, _ = command("info", "--dataset", "-w", workspace, "--json")
    assert printed["figures"]["sources"] == {"clinic": 20, "isic2018": 28}
    _, _, text = command("info", "--dataset", "-w", workspace)
    assert "Images by class and source" in text


def test_images_of_a_lesion_that_is_there_go_to_its_side(workspace, tmp_path):
    _, _, before = load(workspace)
    rows = [
        f"x{n}.jpg,{tiny_datasets.TRAINING[image]},{tiny_datasets.LESION_OF[image]}"
        for n, image in enumerate(tiny_datasets.TRAINING)
    ]
    code, printed, _ = command(
        "download", "--from", own_dataset(tmp_path / "more", rows), "--append", "-w", workspace, "--json"
    )
    assert code == 0
    _, _, after = load(workspace)
    assert all(after[f"x{n}"] == before[image] for n, image in enumerate(tiny_datasets.TRAINING))
    assert any(
        "28 new images show lesions or patients that are there" in note for note in printed["warnings"]
    )


def test_what_is_there_already_by_content_or_archive_id_is_counted_and_left_out(workspace, tmp_path):
    folder = own_dataset(
        tmp_path / "other",
        ["ISIC_0000000.jpg,MEL,A", "ISIC_0000001_downsampled.jpg,NV,B", "copy.jpg,BCC,C", "new.jpg,DF,D"],
    )
    (folder / "copy.jpg").write_bytes(tiny_datasets.jpeg(2))
    code, printed, _ = command("download", "--from", folder, "--append", "-w", workspace, "--json")
    assert code == 0
    figures = printed["figures"]
    assert (figures["added"], figures["already_there"], figures["same_archive_id"]) == (1, 1, 2)
    assert any("2 images have the ISIC id" in note for note in printed["warnings"])
    assert set(load(workspace)[2]) == set(tiny_datasets.TRAINING) | {"new"}


def test_a_contradicting_label_is_refused_and_nothing_changes(workspace, tmp_path):
    folder = own_dataset(tmp_path / "other", ["ISIC_0000000.jpg,NV,A", "new.jpg,DF,D"])
    before = load(workspace)[2]
    code, _, text = command("download", "--from", folder, "--append", "-w", workspace)
    assert code == 1
    assert "ISIC_0000000 (MEL there, NV here)" in text
    assert load(workspace)[2] == before


def test_other_pictures_of_the_same_name_get_their_source_before_it(workspace, tmp_path):
    first = own_dataset(tmp_path / "north", ["IMG_1.jpg,MEL,"], first=1000)
    second = own_dataset(tmp_path / "south", ["IMG_1.jpg,NV,"], first=2000)
    assert command("download", "--from", first, "--append", "-w", workspace)[0] == 0
    code, printed, _ = command("download", "--from", second, "--append", "-w", workspace, "--json")
    assert code == 0
    assert printed["figures"]["renamed"] == 1
    table = load(workspace)[0].table.set_index("id")
    assert (table.loc["IMG_1", "label"], table.loc["south/IMG_1", "label"]) == ("MEL", "NV")
    assert table.loc["south/IMG_1", "lesion_id"] == "south/IMG_1"
    images = Workspace(workspace).images
    assert (images / "south" / "IMG_1.jpg").read_bytes() == tiny_datasets.jpeg(2000)
    assert (images / "IMG_1.jpg").read_bytes() == tiny_datasets.jpeg(1000)


def test_a_patient_of_both_datasets_stays_on_one_side(tmp_path):
    header = "image,label,lesion_id,patient_id"
    rows = [f"a{n}.jpg,{'MEL' if n % 2 else 'NV'},L{n},P{n // 2}" for n in range(20)]
    first = own_dataset(tmp_path / "first", rows, header)
    assert command("download", "--from", first, "--split", "grouped", "-w", tmp_path / "w")[0] == 0
    _, _, before = load(tmp_path / "w")
    patient_side = {f"P{n // 2}": before[f"a{n}"] for n in range(20)}
    assert {side for side, _ in patient_side.values()} == {"train", "val", "test"}
    rows = [f"b{n}.jpg,NV,M{n},P{n}" for n in range(10)] + ["b10.jpg,NV,M10,Q", "b11.jpg,BKL,M11,Q"]
    second = own_dataset(tmp_path / "second", rows, header, first=3000)
    assert command("download", "--from", second, "--append", "-w", tmp_path / "w")[0] == 0
    _, _, after = load(tmp_path / "w")
    assert all(after[f"b{n}"] == patient_side[f"P{n}"] for n in range(10))
    assert after["b10"] == after["b11"] == ("train", "")
    # One lesion of a patient of the training part with a lesion of the test part.
    sides = {part: patient for patient, (part, _) in patient_side.items()}
    torn = own_dataset(
        tmp_path / "torn",
        [f"c0.jpg,NV,T,{sides['train']}", f"c1.jpg,NV,T,{sides['test']}"],
        header,
        first=4000,
    )
    code, _, text = command("download", "--from", torn, "--append", "-w", tmp_path / "w")
    assert code == 1
    assert "c0, c1" in text
    assert load(tmp_path / "w")[2] == after


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "second_code"),
    [
        # Between manifest and split: the next run takes the manifest back, then adds the images.
        ("stages.download.append.Split.save", 0),
        # After both: there is nothing left to add.
        ("artifacts.restorable._discard", 1),
    ],
)
def test_killed_while_images_are_added_the_next_run_ends_as_one_that_was_not(
    place: str, second_code: int, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    source = own_dataset(tmp_path / "clinic", ["a.jpg,MEL,L", "b.jpg,NV,M"])
    whole = Path(shutil.copytree(workspace, tmp_path / "whole"))
    append = ("download", "--from", source, "--append", "-w")
    assert command(*append, whole)[0] == 0
    with monkeypatch.context() as patch:
        if second_code == 1:  # nothing to discard at the beginning
            patch.setattr("skinlesion_cli.stages.download.append.restore", lambda *_: None)
        patch.setattr(f"skinlesion_cli.{place}", kill)
        with pytest.raises(Killed):
            CliRunner().invoke(app, [str(part) for part in (*append, workspace)], catch_exceptions=False)
    assert (workspace / "dataset" / "before-append").is_dir()
    assert command(*append, workspace)[0] == second_code
    assert contents(workspace / "dataset") == contents(whole / "dataset")


def test_a_download_without_append_says_which_images_it_replaces(workspace, tmp_path):
    clinic = own_dataset(tmp_path / "clinic", ["a.jpg,MEL,L", "b.jpg,NV,M"])
    assert command("download", "--from", clinic, "--append", "-w", workspace)[0] == 0
    _, printed, _ = command("download", "--from", tmp_path / "isic", "-w", workspace, "--json")
    assert any("no longer in it: 2 of clinic" in note for note in printed["warnings"])
    _, printed, _ = command("download", "--from", tmp_path / "isic", "-w", workspace, "--json")
    assert not any("no longer in it" in note for note in printed["warnings"])


@pytest.mark.parametrize("option", ["--check-duplicates", "--move-duplicates", "--dry-run"])
def test_what_append_cannot_do_is_wrong_usage(option, workspace, tmp_path):
    folder = own_dataset(tmp_path / "other", ["a.jpg,MEL,L"])
    assert command("download", "--from", folder, "--append", option, "-w", workspace)[0] == 2
    assert command("download", "--from", folder, "--append", "--split", "grouped", "-w", workspace)[0] == 2
    assert command("download", "--append", "-w", workspace)[0] == 2
    code, printed, _ = command("download", "--from", folder, "--append", "-w", tmp_path / "new", "--json")
    assert code == 4
    assert "omit --append" in printed["hint"]


def test_what_comes_next_names_the_workspace_where_it_has_to(tmp_path, monkeypatch):
    source = own_dataset(tmp_path / "a b", ["x.jpg,MEL,L1", "y.jpg,NV,L2"])
    _, printed, _ = command("download", "--from", source, "-w", tmp_path / "w s", "--json")
    assert printed["next"] == f"skinlesion train --arch efficientnet_lite0 -w '{tmp_path / 'w s'}'"
    monkeypatch.setenv("SKINLESION_WORKSPACE", str(tmp_path / "env"))
    _, printed, _ = command("download", "--from", source, "--json")
    assert printed["next"] == "skinlesion train --arch efficientnet_lite0"
    monkeypatch.delenv("SKINLESION_WORKSPACE")
    monkeypatch.chdir(tmp_path)
    _, printed, _ = command("download", "--from", source, "--json")
    assert printed["next"] == "skinlesion train --arch efficientnet_lite0"


def test_copies_under_other_lesion_ids_on_another_side_are_named(tmp_path):
    rows = [f"a{n}.jpg,NV,L{n}" for n in range(12)]
    folder = own_dataset(tmp_path / "in", rows)
    for number in range(1, 12):
        (folder / f"a{number}.jpg").write_bytes((folder / "a0.jpg").read_bytes())
    _, printed, _ = command(
        "download", "--from", folder, "--split", "grouped", "-w", tmp_path / "w", "--json"
    )
    assert any(
        "12 images have the same content as an image on another side" in note for note in printed["warnings"]
    )
