"""Every kind of source: one contract for all, then what is special to each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources import archive_diagnoses
from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.data.sources.registry import SOURCES, read_source
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download.stage import DownloadSettings, run
from tests.support import tiny_datasets
from tests.support.class_lists import ISIC2018

LABELS = {"a1": "MEL", "a2": "NV", "b1": "NV", "b2": "DF", "c1": "AKIEC", "c2": "VASC"}


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def picture(identity: str) -> bytes:
    return tiny_datasets.jpeg(list(LABELS).index(identity) if identity in LABELS else 99)


def make_isic2018(folder: Path) -> Path:
    stem = folder / "ISIC2018_Task3_Training"
    write(Path(f"{stem}_GroundTruth.csv"), tiny_datasets.ground_truth(LABELS))
    rows = "".join(f"{identity},L{identity[0]},histopathology\n" for identity in LABELS)
    write(Path(f"{stem}_LesionGroupings.csv"), "image,lesion_id,diagnosis_confirm_type\n" + rows)
    for identity in LABELS:
        write(Path(f"{stem}_Input") / f"{identity}.jpg", picture(identity))
    return folder


def make_ham10000(folder: Path) -> Path:
    rows = "".join(f"L{i[0]},{i},{label.lower()},histo,50.0,female,back\n" for i, label in LABELS.items())
    write(folder / "HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization\n" + rows)
    for number, identity in enumerate(LABELS):
        write(folder / f"HAM10000_images_part_{number // 3 + 1}" / f"{identity}.jpg", picture(identity))
    return folder


def make_isic2019(folder: Path) -> Path:
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    labels = {i: "AK" if label == "AKIEC" else label for i, label in LABELS.items()}
    # 2,074 of the published ids end like this, in all tables and in the file names.
    labels = {i + "_downsampled" if i == "b2" else i: label for i, label in labels.items()}
    labels |= {"s1": "SCC", "u1": "UNK", "u2": "UNK"}
    write(folder / "ISIC_2019_Training_GroundTruth.csv", tiny_datasets.ground_truth(labels, classes))
    rows = "".join(f"{i},50,back,{'L' + i[0] if i[0] != 's' else ''},female\n" for i in labels)
    write(
        folder / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex\n" + rows,
    )
    for identity in labels:
        content = picture(identity.removesuffix("_downsampled"))
        write(folder / "ISIC_2019_Training_Input" / f"{identity}.jpg", content)
    return folder


ARCHIVE_LEVELS = {
    "MEL": "Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma Invasive",
    "NV": 'Benign,Benign melanocytic proliferations,"Nevus, Special"',
    "DF": "Benign,Benign soft tissue proliferations - Fibro-histiocytic,Dermatofibroma",
    "AKIEC": "Malignant,Malignant epidermal proliferations,Squamous cell carcinoma in situ",
    "VASC": "Benign,Benign soft tissue proliferations - Vascular,",
}


def make_isic_archive(folder: Path) -> Path:
    header = (
        "isic_id,diagnosis_1,diagnosis_2,diagnosis_3,image_type,lesion_id,age_approx,sex,anatom_site_general"
    )
    rows = [f"{i},{ARCHIVE_LEVELS[label]},dermoscopic,L{i[0]},50,female,back" for i, label in LABELS.items()]
    write(folder / "metadata.csv", "\n".join([header, *rows]) + "\n")
    for identity in LABELS:
        write(folder / f"{identity}.jpg", picture(identity))
    return folder


def make_folders(folder: Path) -> Path:
    for identity, label in LABELS.items():
        write(folder / label / f"{identity}.jpg", picture(identity))
    return folder


def make_csv(folder: Path) -> Path:
    rows = "".join(f"pictures/{i}.jpg,{label},L{i[0]},50,female,back\n" for i, label in LABELS.items())
    write(folder / "labels.csv", "image,label,lesion_id,age,sex,site\n" + rows)
    for identity in LABELS:
        write(folder / "pictures" / f"{identity}.jpg", picture(identity))
    return folder / "labels.csv"


def make_reviewed(folder: Path) -> Path:
    rows = "".join(f"pictures/{i}.jpg,{label},L{i[0]},accept,{label}\n" for i, label in LABELS.items())
    header = "image,label,lesion_id,review,decision\n"
    write(folder / "reviewed.csv", header + rows + "pictures/later.jpg,,,,NV\n")
    for identity in LABELS:
        write(folder / "pictures" / f"{identity}.jpg", picture(identity))
    return folder / "reviewed.csv"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "isic2018": make_isic2018,
    "ham10000": make_ham10000,
    "isic2019": make_isic2019,
    "isic-archive": make_isic_archive,
    "folders": make_folders,
    "csv": make_csv,
    "reviewed": make_reviewed,
}


def test_every_source_has_a_fixture():
    assert set(MAKERS) == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_contract(name, tmp_path):
    """Six images come in with class, lesion and content; the source is recognised by its looks alone."""
    source = MAKERS[name](tmp_path / "source")
    assert [known for known, module in SOURCES.items() if module.recognise(source, ISIC2018)] == [name]
    run(DownloadSettings(workspace=tmp_path / "w", source=source, split="grouped"), SilentReporter())
    workspace = Workspace(tmp_path / "w")
    table = Manifest.load(workspace.manifest).table
    assert len(table) == 6
    for row in table.itertuples():
        identity = Path(row.id).name.removesuffix("_downsampled")
        assert row.label == LABELS[identity]
        assert (workspace.images / row.file).read_bytes() == picture(identity)
        if name != "folders":
            assert row.lesion_id == f"L{identity[0]}"
        if name in ("ham10000", "isic2019", "isic-archive", "csv"):
            assert (row.age_years, row.sex, row.site) == ("50", "female", "back")
        assert row.source == ("source" if name in ("folders", "csv", "reviewed") else name)


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_image_is_named(name, tmp_path):
    source = MAKERS[name](tmp_path)
    next(tmp_path.rglob("b1.jpg")).unlink()
    if name == "folders":
        assert len(read_source(source, "auto", SourceOptions(classes=ISIC2018)).records) == 5
        return
    with pytest.raises(DataError, match="b1"):
        read_source(source, "auto", SourceOptions(classes=ISIC2018))


def read(source: Path, **options):
    return read_source(source, "auto", SourceOptions(**options, classes=ISIC2018))


# --- ISIC 2018


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a2,0.0,1.0", "a2,1.0,1.0", "exactly one class: a2"),
        ("a2,0.0,1.0", "a2,0.0,0.0", "exactly one class: a2"),
        ("a2,0.0,1.0", "a2,0.0,nan", "exactly one class: a2"),
        ("a2,0.0,1.0", "a2,0.5,0.5", "exactly one class: a2"),
        ("a2,0.0,1.0", "a2,0.0,yes", "not every value is a number"),
        ("a2,0.0,1.0", "a1,0.0,1.0", "occur more than once: a1"),
        ("image,MEL,NV", "image,MEL,SCC", "has the columns"),
        ("c2,", "c9,", "no file: c9"),
    ],
)
def test_isic2018_refuses_a_wrong_ground_truth(old, new, message, tmp_path):
    source = make_isic2018(tmp_path)
    truth = source / "ISIC2018_Task3_Training_GroundTruth.csv"
    assert old in truth.read_text()
    truth.write_text(truth.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read(source)


def test_isic2018_without_lesions_is_refused(tmp_path):
    source = make_isic2018(tmp_path)
    (source / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    with pytest.raises(DataError, match="without a lesion id: a1, a2, b1, b2, c1") as caught:
        read(source)
    assert "LesionGroupings" in caught.value.hint


def test_isic2018_images_without_ground_truth_are_named(tmp_path):
    source = make_isic2018(tmp_path)
    write(source / "ISIC2018_Task3_Training_Input" / "z9.jpg", tiny_datasets.jpeg(1))
    with pytest.raises(DataError, match="not in the ground truth: z9"):
        read(source)


def test_isic2018_unpacked_into_a_folder_of_its_own_name(tmp_path):
    source = make_isic2018(tmp_path)
    images = source / "ISIC2018_Task3_Training_Input"
    images.rename(source / "inner")
    images.mkdir()
    (source / "inner").rename(images / images.name)
    assert len(read(source).records) == 6


@pytest.mark.parametrize("age", ["old", "-3", "250"])
def test_an_impossible_age_is_refused(age, tmp_path):
    source = make_ham10000(tmp_path)
    metadata = source / "HAM10000_metadata.csv"
    metadata.write_text(metadata.read_text().replace("50.0", age, 1))
    with pytest.raises(DataError, match=f"a1: '{age}' is not an age"):
        read(source)


# --- Kaggle


def test_kaggles_second_copy_of_an_image_is_no_second_image(tmp_path):
    source = make_ham10000(tmp_path)
    write(source / "ham10000_images_part_1" / "a1.jpg", picture("a1"))
    assert len(read(source).records) == 6
    write(source / "ham10000_images_part_1" / "a1.jpg", tiny_datasets.jpeg(77))
    with pytest.raises(DataError, match="different images of one name: a1"):
        read(source)


def test_kaggle_unknown_diagnosis(tmp_path):
    source = make_ham10000(tmp_path)
    metadata = source / "HAM10000_metadata.csv"
    metadata.write_text(metadata.read_text().replace(",df,", ",wart,"))
    with pytest.raises(DataError, match=r"b2 \('wart'\)"):
        read(source)


@pytest.mark.parametrize(
    "layout", ["dataverse", "no suffix", "one folder", "beside", "double folders", "suffixed ids", "zips"]
)
def test_ham10000_however_it_lies(layout, tmp_path):
    source = make_ham10000(tmp_path)
    metadata = source / "HAM10000_metadata.csv"
    parts = [source / f"HAM10000_images_part_{number}" for number in (1, 2)]
    if layout == "dataverse":
        text = metadata.read_text().replace(",", "\t")
        (source / "HAM10000_metadata.tab").write_text(text)
        metadata.unlink()
        # The Dataverse adds the truth of the challenge's test part, with the columns of the metadata.
        write(
            source / "ISIC2018_Task3_Test_GroundTruth.csv",
            "lesion_id,image_id,dx,dx_type,age,sex,localization\n",
        )
    elif layout == "no suffix":
        metadata.rename(source / "HAM10000_metadata")
    elif layout in ("one folder", "beside"):
        target = source / "all images" if layout == "one folder" else source
        target.mkdir(exist_ok=True)
        for part in parts:
            for file in part.iterdir():
                file.rename(target / file.name)
            part.rmdir()
    elif layout == "double folders":
        for part in parts:
            part.rename(source / "inner")
            part.mkdir()
            (source / "inner").rename(part / part.name)
    elif layout == "suffixed ids":
        lines = metadata.read_text().splitlines()
        cells = [line.split(",") for line in lines[1:]]
        rows = [",".join([row[0], f"{row[1]}.jpg", *row[2:]]) for row in cells]
        metadata.write_text("\n".join([lines[0], *rows]) + "\n")
    else:
        for part in parts:
            members = {f"{file.name}": file.read_bytes() for file in part.iterdir()}
            write(source / f"{part.name}.zip", tiny_datasets.zipped(members))
            for file in part.iterdir():
                file.unlink()
            part.rmdir()
    write(source / "._a1.jpg", b"not an image")
    collection = read(tmp_path)
    assert collection.name == "ham10000"
    assert {record.id: record.label for record in collection.records} == LABELS
    assert {record.id: record.origin.read() for record in collection.records} == {
        i: picture(i) for i in LABELS
    }
    assert {record.lesion_id for record in collection.records} == {"La", "Lb", "Lc"}


def test_part_1_of_ham10000_alone_is_the_half_that_it_is(tmp_path):
    source = make_ham10000(tmp_path)
    shutil.rmtree(source / "HAM10000_images_part_2")
    collection = read(source)
    assert [record.id for record in collection.records] == ["a1", "a2", "b1"]
    assert collection.notes == (
        "3 of 6 images have no file (HAM10000_images_part_2 is not there) and were skipped",
    )
    (source / "HAM10000_images_part_1").rename(source / "pictures")
    with pytest.raises(DataError, match="no file: b2, c1, c2"):
        read(source)
    assert len(read(source, allow_missing=True).records) == 3


# --- ISIC archive


def archive(folder: Path, text: str, *images: str, name: str = "metadata.csv") -> Path:
    write(folder / name, text)
    for number, image in enumerate(images):
        write(folder / image, tiny_datasets.jpeg(number))
    return folder


def test_isic_archive_counts_what_it_drops_by_diagnosis(tmp_path):
    header = "isic_id,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,image_type,patient_id,lesion_id\n"
    fibro = "Benign soft tissue proliferations - Fibro-histiocytic"
    epidermal = "Malignant epidermal proliferations"
    rows = [
        'ISIC_0000001,Benign,Benign melanocytic proliferations,Nevus,"Nevus, NOS, '
        'Dermal",dermoscopic,IP_1,IL_1',
        f"ISIC_0000002,Benign,{fibro},Scar,,dermoscopic,IP_1,IL_2",
        f"ISIC_0000003,Benign,{fibro},Scar,,dermoscopic,IP_2,IL_3",
        "ISIC_0000004,Benign,,,,dermoscopic,IP_2,IL_4",
        f'ISIC_0000005,Malignant,{epidermal},"Squamous cell carcinoma, Invasive",,dermoscopic,IP_3,IL_5',
        "ISIC_0000006,Benign,Benign melanocytic proliferations,Nevus,,clinical: close-up,IP_3,IL_6",
        "ISIC_0000007,Benign,Benign melanocytic proliferations,Nevus,,TBP tile: close-up,IP_3,IL_7",
    ]
    images = [f"ISIC_000000{number}.jpg" for number in range(1, 8)]
    source = archive(tmp_path, header + "\n".join(rows) + "\n", *images)
    collection = read(source)
    assert [(r.id, r.label, r.patient_id, r.lesion_id) for r in collection.records] == [
        ("ISIC_0000001", "NV", "IP_1", "IL_1")
    ]
    notes = " ".join(collection.notes)
    assert "2 images that are not dermoscopic" in notes
    assert "1 clinical: close-up" in notes
    assert "4 images without a class were dropped, by diagnosis: 2 Scar, 1 Benign, 1 Squamous" in notes
    assert len(read(source, image_types="all").records) == 3
    asked = read(source, scc_as_akiec=True, class_map={"scar": "DF"}, image_types="all")
    assert [record.label for record in asked.records] == ["NV", "DF", "DF", "AKIEC", "NV", "NV"]


def test_the_deepest_level_of_a_diagnosis_decides():
    spitz = ("Benign", "Benign melanocytic proliferations", "Nevus", "Nevus, Spitz")
    assert archive_diagnoses.class_of(spitz, SourceOptions(classes=ISIC2018)) == ("NV", "Nevus")
    skipping = SourceOptions(class_map={"nevus spitz": "skip"}, classes=ISIC2018)
    assert archive_diagnoses.class_of(spitz, skipping) == ("", "Nevus, Spitz")
    assert archive_diagnoses.class_of(spitz[:3], skipping) == ("NV", "Nevus")
    assert archive_diagnoses.class_of(
        ("Benign", "Cysts", "Milia", "Deep"), SourceOptions(classes=ISIC2018)
    ) == ("", "Milia")
    assert archive_diagnoses.class_of(("", ""), SourceOptions(classes=ISIC2018)) == ("", "none")


def test_isic_2020_and_2024_as_they_are_handed_out(tmp_path):
    columns = (
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    )
    rows = (
        "ISIC_0000001,IP_1,male,45.0,head/neck,lentigo NOS,benign,0\nISIC_0000002,IP_1,,,,unknown,benign,0\n"
    )
    source = archive(
        tmp_path / "2020", f"{columns}\n{rows}", "jpeg/train/ISIC_0000001.jpg", "jpeg/train/ISIC_0000002.jpg",
        name="train.csv",
    )  # fmt: skip
    collection = read(source)
    (record,) = collection.records
    assert (record.label, record.patient_id, record.site, record.age_years) == (
        "BKL",
        "IP_1",
        "head/neck",
        "45",
    )
    assert "1 unknown" in collection.notes[0]

    nevus = "Benign::Benign melanocytic proliferations::Nevus::Nevus, NOS, Junctional"
    truth = f"isic_id,copyright_license,iddx_full,iddx_1\nISIC_0000001,CC-0,{nevus!r},Benign\n".replace(
        "'", '"'
    )
    metadata = "isic_id,patient_id,image_type,tbp_tile_type\nISIC_0000001,IP_9,TBP tile: close-up,3D: white\n"
    source = archive(tmp_path / "2024", truth, "image/ISIC_0000001.jpg", name="supplement.csv")
    write(source / "image" / "metadata.csv", metadata)
    with pytest.raises(DataError, match="1 TBP tile: close-up") as refused:
        read(source)
    assert "--image-types all" in str(refused.value)


def test_isic_archive_tables_of_one_word_and_of_two_files(tmp_path):
    words = {
        "melanoma": "MEL",
        "nevus": "NV",
        "basal cell carcinoma": "BCC",
        "actinic keratosis": "AKIEC",
        "seborrheic keratosis": "BKL",
        "lichenoid keratosis": "BKL",
        "dermatofibroma": "DF",
        "vascular lesion": "VASC",
    }
    rows = [f"ISIC_000000{n},{word},dermoscopic" for n, word in enumerate(words)]
    source = archive(
        tmp_path, "isic_id,diagnosis,image_type\n" + "\n".join(rows) + "\n",
        *(f"ISIC_000000{n}.jpg" for n in range(8)),
    )  # fmt: skip
    assert [record.label for record in read(source).records] == list(words.values())
    write(tmp_path / "more.csv", "isic_id,image_type,patient_id\nISIC_0000000,dermoscopic,IP_7\n")
    assert read(source).records[0].patient_id == "IP_7"
    write(tmp_path / "more.csv", "isic_id,image_type,diagnosis\nISIC_0000000,dermoscopic,nevus\n")
    with pytest.raises(DataError, match="two diagnoses: ISIC_0000000"):
        read(source)


def test_every_diagnosis_of_the_table_is_in_the_documents():
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "own-data.md").read_text("utf-8")
    assert archive_diagnoses.markdown() in page


# --- ISIC 2019


def test_isic2019_maps_the_classes_and_counts_what_it_drops(tmp_path):
    source = make_isic2019(tmp_path)
    collection = read(source)
    published = {"b2_downsampled" if i == "b2" else i: label for i, label in LABELS.items()}
    assert {record.id: record.label for record in collection.records} == published
    assert collection.notes == (
        "2 images of class UNK were dropped",
        "1 images of class SCC were dropped (--scc-as-akiec keeps them)",
    )
    asked = read(source, scc_as_akiec=True)
    assert {record.id: record.label for record in asked.records} == published | {"s1": "AKIEC"}
    assert "1 images of class SCC count as AKIEC" in asked.notes
    assert "1 images without a lesion id count as lesions of their own" in asked.notes


def test_isic2019_in_a_zip_nested_and_with_hidden_files(tmp_path):
    source = make_isic2019(tmp_path)
    images = source / "ISIC_2019_Training_Input"
    (images / "._a1.jpg").write_bytes(b"")
    images.rename(source / "inner")
    images.mkdir()
    (source / "inner").rename(images / images.name)
    assert len(read(source).records) == 6
    members = {
        f"{images.name}/{file.name}": file.read_bytes() for file in (images / images.name).glob("*.jpg")
    }
    shutil.rmtree(images)
    write(source / f"{images.name}.zip", tiny_datasets.zipped(members))
    assert {record.id: record.origin.read() for record in read(source).records if record.id[0] == "b"} == {
        "b1": picture("b1"),
        "b2_downsampled": picture("b2"),
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("isic2018", {"images": True}),
        ("isic2018", {"class_map": {"mole": "NV"}}),
        ("isic2019", {"class_map": {"mole": "NV"}}),
        ("folders", {"images": True}),
    ],
)
def test_options_that_a_source_has_no_use_for_are_refused(name, options, tmp_path):
    source = MAKERS[name](tmp_path)
    given = {key: tmp_path if value is True else value for key, value in options.items()}
    with pytest.raises(UsageError, match="is not for sources of the kind"):
        read(source, **given)


@pytest.mark.parametrize("name", ["folders", "csv", "isic-archive"])
def test_a_map_of_a_name_that_does_not_occur_is_said(name, tmp_path):
    collection = read(MAKERS[name](tmp_path), class_map={"nevvus": "NV"})
    assert any("no label is called 'nevvus'" in note for note in collection.notes)
    assert not any("no label is called" in note for note in read(tmp_path).notes)


@pytest.mark.parametrize("name", ["isic2018", "isic2019", "ham10000", "isic-archive", "csv"])
def test_missing_images_are_left_out_if_asked_and_counted(name, tmp_path):
    source = MAKERS[name](tmp_path)
    for file in tmp_path.rglob("b1.jpg"):
        file.unlink()
    collection = read(source, allow_missing=True)
    assert sorted(Path(record.id).name[:2] for record in collection.records) == ["a1", "a2", "b2", "c1", "c2"]
    assert any("1 " in note and "skipped" in note for note in collection.notes)


def test_isic2018_skips_hidden_files(tmp_path):
    source = make_isic2018(tmp_path)
    write(source / "ISIC2018_Task3_Training_Input" / "._a1.jpg", b"")
    write(source / "ISIC2018_Task3_Training_Input" / ".ipynb_checkpoints" / "a1.jpg", b"")
    assert len(read(source).records) == 6


# --- class folders


def test_class_folders_with_parts(tmp_path):
    for part in ("train", "val", "test"):
        write(tmp_path / part / "mel" / "x.jpg", picture("a1"))
    records = read(tmp_path).records
    assert {record.id: (record.label, record.part) for record in records} == {
        "test/mel/x": ("MEL", "test"),
        "train/mel/x": ("MEL", "train"),
        "val/mel/x": ("MEL", "val"),
    }


def test_class_folders_warn_that_lesions_are_unknown(tmp_path):
    assert "no lesion ids" in read(make_folders(tmp_path)).notes[0]


def test_class_folders_refuse_images_elsewhere(tmp_path):
    source = make_folders(tmp_path)
    write(source / "unsorted" / "q.jpg", picture("a1"))
    write(source / "r.png", picture("a1"))
    with pytest.raises(DataError, match=r"not in the folder of a class: r.png, unsorted/q.jpg"):
        read(source)


def test_names_that_differ_in_their_end_only_stay_apart(tmp_path):
    write(tmp_path / "MEL" / "a.jpg", picture("a1"))
    write(tmp_path / "MEL" / "a.png", picture("a2"))
    write(tmp_path / "NV" / "a.jpg", picture("b1"))
    assert [record.id for record in read(tmp_path).records] == ["MEL/a.jpg", "MEL/a.png", "NV/a"]


# --- CSV


def csv_of(folder: Path, text: str, *images: str) -> Path:
    for image in images:
        write(folder / image, picture("a1"))
    write(folder / "labels.csv", text)
    return folder / "labels.csv"


def test_ids_that_look_like_numbers_or_missing_values_stay_as_they_are(tmp_path):
    text = "image,label,lesion_id\nNA,MEL,001\n001,nv,1e5\n1e5,DF,NA\n"
    records = read(csv_of(tmp_path, text, "NA.jpg", "001.jpg", "1e5.png")).records
    assert [(record.id, record.label, record.lesion_id) for record in records] == [
        ("NA", "MEL", "001"),
        ("001", "NV", "1e5"),
        ("1e5", "DF", "NA"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.jpg\n", "lacks label"),
        ("image,label,dx\na.jpg,MEL,NV\n", "'label' and 'dx' contradict each other in lines 2"),
        ("image,label\na.jpg,WART\n", r"label that is not known: a.jpg \('WART'\)"),
        ("image,label\na.jpg,MEL\na.jpg,NV\n", "more than once: a.jpg"),
        ("image,label\na.jpg,MEL\na,NV\n", "more than once: a.jpg"),
        ("image,label\n../out.jpg,MEL\n", "no file beside the table: ../out.jpg"),
        ("image,label\n/etc/passwd,MEL\n", "no file beside the table: /etc/passwd"),
        ("image,label\ntwo,MEL\n", r"several files: two \(two.jpg or two.png\)"),
        ("image,label,part\na.jpg,MEL,exam\n", r"unknown part: a.jpg \('exam'\)"),
        ("", "cannot be read as a CSV"),
    ],
)
def test_a_csv_that_cannot_be_used(text, message, tmp_path):
    write(tmp_path / "out.jpg", picture("a1"))
    source = csv_of(tmp_path / "in", text, "a.jpg", "two.jpg", "two.png")
    with pytest.raises(DataError, match=message):
        read(source)


def test_a_csv_with_some_lesions_says_how_many_lack_one(tmp_path):
    text = "image,label,lesion_id\na.jpg,MEL,L1\nb.jpg,NV,\n"
    collection = read(csv_of(tmp_path, text, "a.jpg", "b.jpg"))
    assert [record.lesion_id for record in collection.records] == ["L1", "b"]
    assert collection.notes == ("1 images without a lesion_id count as lesions of their own",)


# --- listing


def test_listing_skips_hidden_files_and_links_and_sorts_by_code_point(tmp_path):
    for name in ("b.jpg", "B.JPG", "a b.png", "ä.jpg", "sub/-x.tif", "sub/=y.jpg", "no.txt", ".hidden.jpg"):
        write(tmp_path / name, b"x")
    write(tmp_path / ".git" / "a.jpg", b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "outside.jpg").symlink_to("/etc/hostname")
    listing = list_images(tmp_path)
    assert listing.files == ("B.JPG", "a b.png", "b.jpg", "sub/-x.tif", "sub/=y.jpg", "ä.jpg")
    assert listing.links == ("loop", "outside.jpg")


def test_listing_needs_a_folder(tmp_path):
    with pytest.raises(UsageError):
        list_images(tmp_path / "none")
