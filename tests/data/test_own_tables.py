"""Tables and folders as people have them: separators, encodings, headers, class names, file names."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split, leaking_patients
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.cli.app import app
from tests.support import tiny_datasets

pytestmark = pytest.mark.command_line

LABELS = {"p1": "MEL", "p2": "NV", "p3": "BCC", "p4": "AKIEC", "p5": "BKL", "p6": "DF", "p7": "VASC"}


def place(folder: Path, *names: str) -> Path:
    """Different pictures under these names."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_datasets.jpeg(number))
    return folder


def download(source: Path, workspace: Path, *options: object) -> tuple[int, dict[str, Any], Any]:
    """Exit code, what `--json` printed, and the manifest's rows by file name without folder and suffix."""
    arguments = ["download", "--from", source, "-w", workspace, "--split", "grouped", "--json", *options]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    rows = {}
    if Workspace(workspace).manifest.is_file():
        table = Manifest.load(Workspace(workspace).manifest).table
        rows = {Path(row["file"]).stem: row for row in table.to_dict("records")}
    printed = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return done.exit_code, printed | {"text": " ".join(done.output.replace("\\n", " ").split())}, rows


def table_of(separator: str = ",", header: str = "image,label,lesion_id", end: str = ".jpg") -> str:
    rows = [header, *(f"{name}{end},{label},L{name}" for name, label in LABELS.items())]
    return "\r\n".join(rows).replace(",", separator) + "\r\n"


def check_labels(rows: Any) -> None:
    assert {name: row["label"] for name, row in rows.items()} == LABELS
    assert {name: row["lesion_id"] for name, row in rows.items()} == {name: f"L{name}" for name in LABELS}


@pytest.mark.parametrize(
    ("name", "separator", "encoding"),
    [
        ("labels.csv", ";", "utf-8-sig"),
        ("labels.csv", "\t", "utf-8"),
        ("labels.tsv", "\t", "utf-8"),
        ("labels.txt", "|", "utf-8"),
        ("labels.csv", ",", "utf-16"),
        ("labels.csv", ";", "utf-16-le"),
        ("labels.csv", ";", "utf-16-be"),
        ("labels.csv", "\t", "utf-32"),
    ],
)
def test_separators_and_encodings(name, separator, encoding, tmp_path):
    place(tmp_path / "in", *(f"{image}.jpg" for image in LABELS))
    (tmp_path / "in" / name).write_bytes(table_of(separator).encode(encoding))
    code, _, rows = download(tmp_path / "in" / name, tmp_path / "w")
    assert code == 0
    check_labels(rows)


def test_excel_says_which_separator(tmp_path):
    place(tmp_path, *(f"{image}.jpg" for image in LABELS))
    (tmp_path / "labels.csv").write_text("sep=|\n" + table_of("|"))
    code, _, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0
    check_labels(rows)


def test_windows_1252_is_read_and_said(tmp_path):
    place(tmp_path, "Läsion.jpg")
    (tmp_path / "labels.csv").write_bytes("image;label;site\nLäsion.jpg;MEL;Rücken\n".encode("cp1252"))
    code, printed, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0
    assert rows["Läsion"]["site"] == "Rücken"
    assert "Windows-1252" in " ".join(printed["warnings"])


@pytest.mark.parametrize(
    "header",
    [
        "Image_ID,DX,Lesion ID",
        "FILENAME,Diagnosis,lesionId",
        "isic_id,class,Lesion",
        "File,Target,lesion-id",
        "image name,ground truth,LESION_ID",
    ],
)
def test_headers_by_synonyms_in_any_case(header, tmp_path):
    place(tmp_path, *(f"{image}.jpg" for image in LABELS))
    (tmp_path / "labels.csv").write_text(table_of(header=header, end=""))
    code, printed, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0, printed
    check_labels(rows)


def test_index_and_unknown_columns_are_named_and_not_used(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    text = ",image,label,dx_type,camera\n0,a.jpg,MEL,histo,X\n1,b.jpg,NV,histo,Y\n"
    (tmp_path / "labels.csv").write_text(text)
    code, printed, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0
    assert {name: row["label"] for name, row in rows.items()} == {"a": "MEL", "b": "NV"}
    note = next(note for note in printed["warnings"] if "not used" in note)
    assert all(name in note for name in ("column 1", "dx_type", "camera"))


LONG_NAMES = {
    "melanoma": "MEL",
    "Malignant Melanoma": "MEL",
    "nevus": "NV",
    "naevus": "NV",
    "melanocytic_nevi": "NV",
    "nv": "NV",
    "basal cell carcinoma": "BCC",
    "Basal-Cell-Carcinoma": "BCC",
    "actinic keratosis": "AKIEC",
    "Bowen's disease": "AKIEC",
    "benign keratosis": "BKL",
    "seborrheic keratosis": "BKL",
    "seborrhoeic keratosis": "BKL",
    "solar lentigo": "BKL",
    "dermatofibroma": "DF",
    "vascular lesion": "VASC",
    "haemangioma": "VASC",
    "melanoma (0.76 to 1.5 mm)": "MEL",
    "SEK": "BKL",
    "ACK": "AKIEC",
}


def test_class_names_by_synonyms_in_tables_and_folders(tmp_path):
    names = {f"x{number}": name for number, name in enumerate(LONG_NAMES)}
    place(tmp_path / "csv", *(f"{image}.jpg" for image in names))
    (tmp_path / "csv" / "labels.csv").write_text(
        "image,label\n" + "".join(f"{image},{name}\n" for image, name in names.items())
    )
    place(tmp_path / "folders", *(f"{name}/{image}.jpg" for image, name in names.items()))
    for source in ("csv", "folders"):
        code, printed, rows = download(tmp_path / source, tmp_path / f"w-{source}")
        assert code == 0, printed
        assert {names[image]: row["label"] for image, row in rows.items()} == LONG_NAMES


def test_what_no_synonym_knows_is_refused_and_map_gives_it_a_class(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "labels.csv").write_text(
        "image,label\na,common mole 3\nb,keratosis\nc,wart\nd,squamous cell carcinoma\n"
    )
    source = tmp_path / "labels.csv"
    code, printed, _ = download(source, tmp_path / "w")
    assert code == 1
    assert all(name in printed["text"] for name in ("a ('common mole 3')", "b ('keratosis')", "--map"))
    mapped = ("--map", "Common Mole 3=nevus", "--map", "keratosis=BKL", "--map", "wart=skip")
    code, printed, rows = download(source, tmp_path / "w", *mapped)
    assert code == 0
    assert {name: row["label"] for name, row in rows.items()} == {"a": "NV", "b": "BKL"}
    notes = " ".join(printed["warnings"])
    assert "1 images of class wart were dropped" in notes
    assert "1 images of class squamous cell carcinoma were dropped (--scc-as-akiec keeps them)" in notes
    _, _, rows = download(source, tmp_path / "w", *mapped, "--scc-as-akiec")
    assert rows["d"]["label"] == "AKIEC"


@pytest.mark.parametrize("entry", ["nevus", "mole=wart", "mole="])
def test_a_map_that_makes_no_sense_is_wrong_usage(entry, tmp_path):
    place(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_text("image,label\na,MEL\n")
    code, _, _ = download(tmp_path / "labels.csv", tmp_path / "w", "--map", entry)
    assert code == 2


def test_a_column_for_each_class(tmp_path):
    place(tmp_path, *(f"{image}.jpg" for image in LABELS))
    (tmp_path / "truth.csv").write_text(tiny_datasets.ground_truth(LABELS))
    code, _, rows = download(tmp_path / "truth.csv", tmp_path / "w")
    assert code == 0
    assert {name: row["label"] for name, row in rows.items()} == LABELS


def test_file_names_in_another_case_and_in_sub_folders(tmp_path):
    place(tmp_path, "Photos/P1.JPG", "Photos/deep/p2.jpeg", "p3.JPG")
    (tmp_path / "labels.csv").write_text("image,label\nphotos/p1.jpg,MEL\nP2,NV\nP3.jpg,BCC\n")
    code, _, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0
    assert {row["file"]: row["label"] for row in rows.values()} == {
        "Photos/P1.JPG": "MEL",
        "Photos/deep/p2.jpeg": "NV",
        "p3.JPG": "BCC",
    }


def test_two_files_that_a_name_could_mean_are_refused(tmp_path):
    place(tmp_path, "left/a.jpg", "right/a.jpg")
    (tmp_path / "labels.csv").write_text("image,label\na,MEL\n")
    code, printed, _ = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 1
    assert "left/a.jpg or right/a.jpg" in printed["text"]


def test_images_elsewhere_and_images_missing(tmp_path):
    place(tmp_path / "photos", "a.jpg", "b.jpg", ".a.jpg")
    (tmp_path / "tables").mkdir()
    source = tmp_path / "tables" / "labels.csv"
    source.write_text("image,label\na,MEL\nb,NV\nc,NV\nd,NV\n")
    assert download(source, tmp_path / "w")[0] == 1
    code, printed, _ = download(source, tmp_path / "w", "--images", tmp_path / "photos")
    assert code == 1
    assert "c, d" in printed["text"]
    code, printed, rows = download(source, tmp_path / "w", "--images", tmp_path / "photos", "--allow-missing")
    assert code == 0
    assert sorted(rows) == ["a", "b"]
    assert any("2 of 4 rows have no image" in note for note in printed["warnings"])
    assert download(source, tmp_path / "w", "--images", tmp_path / "nowhere")[0] == 2


def test_without_any_image_nothing_is_left_out_in_silence(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\na,MEL\n")
    assert download(tmp_path / "labels.csv", tmp_path / "w", "--allow-missing")[0] == 1


def test_a_folder_with_one_table_uses_it_and_one_with_two_says_so(tmp_path):
    place(tmp_path / "in" / "in", "a.jpg", "._a.jpg", "b.jpg")
    (tmp_path / "in" / "in" / "labels.csv").write_text("image,label\na,MEL\nb,NV\n")
    (tmp_path / "in" / "in" / "._labels.csv").write_text("image,label\nz,MEL\n")
    (tmp_path / "in" / "in" / "notes.txt").write_text("nothing of interest\n")
    code, _, rows = download(tmp_path / "in", tmp_path / "w")
    assert code == 0
    assert {name: row["source"] for name, row in rows.items()} == {"a": "in", "b": "in"}
    (tmp_path / "in" / "in" / "more.csv").write_text("image,label\na,MEL\n")
    code, printed, _ = download(tmp_path / "in", tmp_path / "w2")
    assert code == 2
    assert "labels.csv, more.csv" in printed["text"]


def test_rows_longer_than_the_header_are_named_and_shorter_ones_filled_up(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    source = tmp_path / "labels.csv"
    source.write_text("image,label,sex,,\na,MEL\nb,NV,male,,\n")
    code, _, rows = download(source, tmp_path / "w")
    assert code == 0
    assert (rows["a"]["sex"], rows["b"]["sex"]) == ("", "male")
    source.write_text("image,label,sex\na,MEL,male,\nb,NV,male\n")
    code, printed, _ = download(source, tmp_path / "w")
    assert code == 1
    assert "more cells than its header: 2" in printed["text"]


def test_lines_that_end_in_carriage_returns_alone(tmp_path):
    place(tmp_path, *(f"{image}.jpg" for image in LABELS))
    (tmp_path / "labels.csv").write_bytes(table_of(";").replace("\r\n", "\r").encode())
    code, _, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0
    check_labels(rows)


def test_a_patient_column_keeps_patients_together(tmp_path):
    rows = [(f"i{n}", ("MEL", "NV", "NV")[n % 3], f"Patient {n // 4}") for n in range(40)]
    place(tmp_path, *(f"{image}.jpg" for image, _, _ in rows))
    text = "file;class;PatientID\n" + "".join(
        f"{image};{label};{patient}\n" for image, label, patient in rows
    )
    (tmp_path / "labels.csv").write_text(text)
    for split in ("official", "grouped", "kfold"):
        code, printed, found = download(
            tmp_path / "labels.csv", tmp_path / split, "--split", split, "--folds", 3
        )
        assert code == 0
        assert {image: row["patient_id"] for image, row in found.items()} == {i: p for i, _, p in rows}
        assert not any("no lesion ids" in note for note in printed["warnings"])
        manifest = Manifest.load(Workspace(tmp_path / split).manifest)
        table = Split.load(Workspace(tmp_path / split).split, manifest).table
        assert leaking_patients(table, manifest) == []
        assert (
            set(table["part"] + table["fold"])
            == {
                "official": {"train", "val"},
                "grouped": {"train", "val", "test"},
                "kfold": {"train0", "train1", "train2"},
            }[split]
        )


def test_an_attribution_beside_the_images_is_kept(tmp_path):
    place(tmp_path / "clinic", "a.jpg")
    (tmp_path / "clinic" / "labels.csv").write_text("image,label\na,MEL\n")
    (tmp_path / "clinic" / "ATTRIBUTION.txt").write_text("Photographs by Dr. Example, CC BY 4.0\n")
    assert download(tmp_path / "clinic", tmp_path / "w")[0] == 0
    assert "Photographs by Dr. Example" in Manifest.load(Workspace(tmp_path / "w").manifest).attribution


def test_a_stored_split_with_a_patient_on_two_sides_stops_the_command(tmp_path, monkeypatch):
    rows = [(f"i{n}", "NV", f"P{n // 2}") for n in range(20)]
    place(tmp_path, *(f"{image}.jpg" for image, _, _ in rows))
    text = "image,label,patient_id\n" + "".join(",".join(row) + "\n" for row in rows)
    (tmp_path / "labels.csv").write_text(text)
    assert download(tmp_path / "labels.csv", tmp_path / "w")[0] == 0
    workspace = Workspace(tmp_path / "w")
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    part = {"train": "val", "val": "test", "test": "train"}
    moved = split.table["part"].where(split.table["id"] != "i0", split.table["part"].map(part))
    with monkeypatch.context() as patched:
        patched.setattr("skinlesion_cli.artifacts.split.check_leakage", lambda split, manifest: None)
        replace(split, table=split.table.assign(part=moved), artifact=None).save(workspace.split, manifest)
    for arguments in (("info",), ("info", "--dataset"), ("train", "--arch", "tiny", "--weights", "none")):
        done = CliRunner().invoke(app, [*arguments, "-w", str(tmp_path / "w")])
        assert done.exit_code == 1, done.output
        assert "more than one side of the split: P0" in " ".join(done.output.split())


def test_tables_of_the_isic_archive_are_recognised_and_what_is_dropped_counted(tmp_path):
    header = "isic_id,image_type,diagnosis_1,diagnosis_2,diagnosis_3,patient_id,lesion_id"
    nevus = "Benign,Benign melanocytic proliferations,Nevus"
    scar = "Benign,Benign soft tissue proliferations - Fibro-histiocytic,Scar"
    melanoma = "Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma in situ"
    rows = [
        f"ISIC_{n:07d},dermoscopic,{(nevus, melanoma, scar)[n % 3]},IP_{n // 6},IL_{n}" for n in range(36)
    ]
    rows.append(f"ISIC_0000036,clinical: overview,{nevus},IP_9,IL_36")
    place(tmp_path / "in", *(f"ISIC_{n:07d}.jpg" for n in range(37)))
    (tmp_path / "in" / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    code, printed, found = download(tmp_path / "in", tmp_path / "w")
    assert code == 0
    assert Counter(row["label"] for row in found.values()) == {"NV": 12, "MEL": 12}
    assert {row["source"] for row in found.values()} == {"isic-archive"}
    notes = " ".join(printed["warnings"])
    assert "12 images without a class were dropped, by diagnosis: 12 Scar" in notes
    assert "1 images that are not dermoscopic were skipped (1 clinical: overview)" in notes
    manifest = Manifest.load(Workspace(tmp_path / "w").manifest)
    split = Split.load(Workspace(tmp_path / "w").split, manifest)
    assert leaking_patients(split.table, manifest) == []
    assert set(split.table["part"]) == {"train", "val", "test"}
    code, _, found = download(
        tmp_path / "in", tmp_path / "w", "--format", "isic-archive", "--image-types", "all"
    )
    assert (code, len(found)) == (0, 25)


def test_isic_2019_with_its_published_ids(tmp_path):
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    labels = {"ISIC_0000016": "NV", "ISIC_0000017_downsampled": "AK", "ISIC_0000018": "SCC"}
    place(tmp_path / "in" / "ISIC_2019_Training_Input", *(f"{image}.jpg" for image in labels))
    (tmp_path / "in" / "ISIC_2019_Training_GroundTruth.csv").write_text(
        tiny_datasets.ground_truth(labels, classes)
    )
    rows = "".join(f"{image},55.0,anterior torso,L{n},female\n" for n, image in enumerate(labels))
    (tmp_path / "in" / "ISIC_2019_Training_Metadata.csv").write_text(
        "image,age_approx,anatom_site_general,lesion_id,sex\n" + rows
    )
    code, _, found = download(tmp_path / "in", tmp_path / "w")
    assert code == 0
    assert {name: (row["label"], row["lesion_id"]) for name, row in found.items()} == {
        "ISIC_0000016": ("NV", "L0"),
        "ISIC_0000017_downsampled": ("AKIEC", "L1"),
    }


def test_a_table_that_stands_for_a_huge_one_and_a_fifo_are_refused(tmp_path):
    header = ",".join(["image", "label", *(f"h{n}" for n in range(1900))])
    (tmp_path / "labels.csv").write_text(header + "\n" + "a,MEL\n" * 20_000)
    code, printed, _ = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 1
    assert "more than 20,000,000 cells" in printed["text"]
    os.mkfifo(tmp_path / "fifo.csv")
    code, printed, _ = download(tmp_path / "fifo.csv", tmp_path / "w")
    assert code in (1, 2)
    assert not Workspace(tmp_path / "w").manifest.exists()


def test_of_several_columns_that_may_be_the_label_the_one_that_is_understood_counts(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text("image,target,diagnosis\na,1,melanoma\nb,0,nevus\n")
    code, printed, rows = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 0
    assert {name: row["label"] for name, row in rows.items()} == {"a": "MEL", "b": "NV"}
    assert any("not used: target" in note for note in printed["warnings"])


def test_a_column_for_each_class_that_does_not_say_exactly_one_is_refused(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    header = "image;melanoma;nevus;bcc;ak;bkl;df;vasc\n"
    (tmp_path / "labels.csv").write_text(header + "a;1,0;0,0;0;0;0;0;0\nb;1;1;0;0;0;0;0\n")
    code, printed, _ = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 1
    assert "exactly one class: b" in printed["text"]


def test_an_empty_table_and_a_list_without_labels_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\n")
    code, printed, _ = download(tmp_path / "labels.csv", tmp_path / "w")
    assert code == 1
    assert "has no rows" in printed["text"]
    (tmp_path / "reviewed.csv").write_text("image,label,review\na.jpg,,later\n")
    code, printed, _ = download(tmp_path / "reviewed.csv", tmp_path / "w")
    assert code == 1
    assert "no row has a label" in printed["text"]


def test_two_classes_for_one_name_are_wrong_usage(tmp_path):
    place(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_text("image,label\na,mole x\n")
    maps = ("--map", "mole x=NV", "--map", "Mole-X=MEL")
    assert download(tmp_path / "labels.csv", tmp_path / "w", *maps)[0] == 2


def test_paths_of_another_machine_are_found_by_what_is_there_and_said(tmp_path):
    place(tmp_path / "in", "images/a.jpg", "images/b.jpg", "c.jpg", "other/d.jpg")
    place(tmp_path, "secret.jpg")
    source = tmp_path / "in" / "labels.csv"
    source.write_text("image,label\n/home/x/images/a.jpg,MEL\nC:\\data\\images\\b.jpg,NV\ntrain/c.jpg,BCC\n")
    code, printed, rows = download(source, tmp_path / "w")
    assert code == 0
    assert {row["file"]: row["label"] for row in rows.values()} == {
        "images/a.jpg": "MEL",
        "images/b.jpg": "NV",
        "c.jpg": "BCC",
    }
    assert any(
        "3 images were found without the folders before their name" in note for note in printed["warnings"]
    )
    # A folder that is there is meant, and nothing outside is ever found.
    for image in ("images/d.jpg", f"{tmp_path}/secret.jpg", "../secret.jpg", "images/../../secret.jpg"):
        source.write_text(f"image,label\n{image},MEL\n")
        code, printed, _ = download(source, tmp_path / "w2")
        assert code == 1, image
        assert "no file beside the table" in printed["text"]
