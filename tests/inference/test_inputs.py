"""What a user may name, and what becomes of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.data.reading.inputs import check_named, count_quickly, expand, identity, lines, load
from skinlesion_cli.errors import DataError, ImageError, UsageError


def picture(path: Path, colour: tuple[int, int, int] = (200, 150, 100)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (32, 24), colour)
    image.paste((40, 30, 20), (8, 6, 24, 18))
    image.save(path)
    return path


def test_ids_are_paths_below_the_one_folder_named(tmp_path: Path) -> None:
    for name in ("b/x.jpg", "a/x.jpg", "x.png", "notes.txt"):
        picture(tmp_path / name) if name != "notes.txt" else (tmp_path / name).write_text("no")
    assert [source.id for source in expand([str(tmp_path)])] == ["a/x.jpg", "b/x.jpg", "x.png"]


def test_counting_ahead_agrees_with_what_comes_and_gives_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/b/x.jpg", "in/a/x.jpg", "in/x.png", "in/c d/e/y.jpg", "alone.jpg"):
        picture(Path(name))
    Path("in/notes.txt").write_text("no", encoding="utf-8")
    Path("in/archive.zip").write_bytes(b"archives below folders are not opened")
    Path("in/link.jpg").symlink_to("x.png")
    Path("in/elsewhere").symlink_to("a")
    Path("in/nothing").symlink_to("notes.txt")
    for named in (["in"], ["in", "alone.jpg"], ["in/*.png"], ["in/**/*.jpg", "in/a"]):
        assert count_quickly(named, 100) == len(list(expand(named)))
    assert count_quickly(["in"], 6) == 6
    assert count_quickly(["in"], 5) is None
    assert count_quickly(["in", "in/archive.zip"], 100) is None
    assert count_quickly(["@list.txt"], 100) is None


def test_two_folders_of_one_name_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "one" / "in" / "x.jpg")
    picture(tmp_path / "two" / "in" / "x.jpg")
    monkeypatch.chdir(tmp_path)
    assert [s.id for s in expand(["one/in/", "two/in"])] == ["one/in/x.jpg", "two/in/x.jpg"]


def test_patterns_lists_and_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p/1.jpg", "p/2.jpg", "p/3.txt"):
        picture(Path(name)) if name.endswith("jpg") else Path(name).write_text("no", encoding="utf-8")
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.write("p/2.jpg", "deep/2.jpg")
        archive.write("p/2.jpg", "__MACOSX/._2.jpg")
    Path("list.txt").write_text("p/1.jpg\nz.zip\n", encoding="utf-8")
    assert [s.id for s in expand(["p/*", "@list.txt"])] == [
        "p/1.jpg",
        "p/2.jpg",
        "p/1.jpg",
        "z.zip/deep/2.jpg",
    ]
    assert [s.id for s in expand(["z.zip"])] == ["deep/2.jpg"]
    np.testing.assert_array_equal(
        load(next(iter(expand(["z.zip"])))).pixels, load(next(iter(expand(["p/2.jpg"])))).pixels
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.jpg\r\nb c.jpg\n\nd.jpg", ["a.jpg", "b c.jpg", "d.jpg"]),
        (b"two\nlines.jpg\0b.jpg\0", ["two", "lines.jpg\0b.jpg\0"]),
        (b"b.jpg\0two\nlines.jpg\0", ["b.jpg", "two\nlines.jpg"]),
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),
        (b"", []),
    ],
)
def test_lists_end_names_by_newline_or_nul(content: bytes, expected: list[str]) -> None:
    assert list(lines(io.BytesIO(content))) == expected


def test_a_name_is_cut_right_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinlesion_cli.data.reading.lists._CHUNK_BYTES", 3)
    assert list(lines(io.BytesIO(b"long name.jpg\nb.jpg\n"))) == ["long name.jpg", "b.jpg"]


def test_expansion_is_lazy() -> None:
    def endless():
        while True:
            yield "a.jpg"

    assert next(iter(expand([], endless()))).id == "a.jpg"


def test_ids_are_one_printable_line_and_stay_different() -> None:
    names = ["a\nb", "a\\x0ab", "a\x1bb", "a\u202eb", "NA", "001", "1e5", "ä ö"]
    ids = [identity(name) for name in names]
    assert ids == ["a\\x0ab", "a\\\\x0ab", "a\\x1bb", "a\\u202eb", "NA", "001", "1e5", "ä ö"]
    assert len(set(ids)) == len(names)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.jpg, @nolist, \*\.nothing"):
        check_named(["nowhere.jpg", "@nolist", "*.nothing", str(tmp_path)])


def test_a_damaged_archive_is_refused_before_anything_is_predicted(tmp_path: Path) -> None:
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(picture(tmp_path / "1.png"), "1.png")
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        check_named([str(path)])
    (refused,) = expand([], [str(path)])
    with pytest.raises(ImageError, match="damaged"):
        load(refused)


def _dicom(path: Path, pixels: np.ndarray, photometric: str, bits: int) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VLPhotographicImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_gives_the_pixels_that_were_put_in(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    colour = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    _dicom(tmp_path / "rgb.dcm", colour, "RGB", 8)
    # 12 bits stored in 16: 4095 is white, 2048 is 2048 / 4095 * 255 = 127.5, rounded to even.
    grey = np.full((24, 32), 2048, np.uint16)
    grey[0] = 4095
    _dicom(tmp_path / "grey.dcm", grey, "MONOCHROME2", 12)
    _dicom(tmp_path / "inverted.dcm", grey, "MONOCHROME1", 12)
    (tmp_path / "text.dcm").write_text("no")
    found = {source.id: source for source in expand([str(tmp_path)])}
    np.testing.assert_array_equal(load(found["rgb.dcm"]).pixels, colour)
    assert load(found["grey.dcm"]).pixels[0, 0].tolist() == [255, 255, 255]
    assert load(found["grey.dcm"]).pixels[1, 1].tolist() == [128, 128, 128]
    assert load(found["inverted.dcm"]).pixels[0, 0].tolist() == [0, 0, 0]
    with pytest.raises(ImageError) as refused:
        load(found["text.dcm"])
    assert refused.value.reason == "not_an_image"
    with pytest.raises(ImageError) as large:
        load(found["rgb.dcm"], max_pixels=700)
    assert large.value.reason == "too_large"
