"""Every kind of source: one contract for all, then what is special to each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.data.sources.registry import SOURCES, read_source
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download.stage import DownloadSettings, run
from tests.data import tiny

LABELS = {"a1": "MEL", "a2": "NV", "b1": "NV", "b2": "DF", "c1": "AKIEC", "c2": "VASC"}


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def picture(identity: str) -> bytes:
    return tiny.jpeg(list(LABELS).index(identity) if identity in LABELS else 99)


def make_isic2018(folder: Path) -> Path:
    stem = folder / "ISIC2018_Task3_Training"
    write(Path(f"{stem}_GroundTruth.csv"), tiny.ground_truth(LABELS))
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
    write(folder / "ISIC_2019_Training_GroundTruth.csv", tiny.ground_truth(labels, classes))
    rows = "".join(f"{i},50,back,{'L' + i[0] if i[0] != 's' else ''},female\n" for i in labels)
    write(
        folder / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex\n" + rows,
    )
    for identity in labels:
        content = picture(identity.removesuffix("_downsampled"))
        write(folder / "ISIC_2019_Training_Input" / f"{identity}.jpg", content)
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
    assert [known for known, module in SOURCES.items() if module.recognise(source)] == [name]
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
        if name in ("ham10000", "isic2019", "csv"):
            assert (row.age_years, row.sex, row.site) == ("50", "female", "back")
        assert row.source == ("source" if name in ("folders", "csv", "reviewed") else name)


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_image_is_named(name, tmp_path):
    source = MAKERS[name](tmp_path)
    next(tmp_path.rglob("b1.jpg")).unlink()
    if name == "folders":
        assert len(read_source(source, "auto", SourceOptions()).records) == 5
        return
    with pytest.raises(DataError, match="b1"):
        read_source(source, "auto", SourceOptions())


def read(source: Path, **options):
    return read_source(source, "auto", SourceOptions(**options))


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
    write(source / "ISIC2018_Task3_Training_Input" / "z9.jpg", tiny.jpeg(1))
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
    write(source / "ham10000_images_part_1" / "a1.jpg", tiny.jpeg(77))
    with pytest.raises(DataError, match="different images of one name: a1"):
        read(source)


def test_kaggle_unknown_diagnosis(tmp_path):
    source = make_ham10000(tmp_path)
    metadata = source / "HAM10000_metadata.csv"
    metadata.write_text(metadata.read_text().replace(",df,", ",wart,"))
    with pytest.raises(DataError, match=r"b2 \('wart'\)"):
        read(source)


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
    with pytest.raises(DataError, match=r"no folder of a class: r.png, unsorted/q.jpg"):
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
