"""Sources with nothing, or something essential missing, in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.data.sources import class_folders, kaggle_ham10000
from skinlesion_cli.data.sources.base import SourceOptions
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018


def test_class_folders_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "MEL").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        class_folders.read(tmp_path, SourceOptions(classes=ISIC2018))


def test_ham10000_without_its_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"HAM10000_metadata\.csv is missing in"):
        kaggle_ham10000.read(tmp_path, SourceOptions(classes=ISIC2018))


def test_a_file_is_no_copy_of_ham10000(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image\n")
    assert kaggle_ham10000.recognise(tmp_path / "a.csv", ISIC2018) is False
