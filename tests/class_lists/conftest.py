"""One small workspace per class list, from its labels to an ensemble, on generated images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.reading import read_class_list
from skinlesion_cli.taxonomy.shipped import shipped
from tests.support.tiny_datasets import jpeg
from tests.training.small import small_recipe

PER_CLASS = 8
OWN_CODES = tuple(f"C{number:02d}" for number in range(12))
BENIGN = ("NEV", "SEB", "FIB")
MALIGNANT_OF_OWN = ("C01", "C07", "C11")
OWN_YAML = "name: clinic\nclasses:\n" + "".join(
    f"  - code: {code}\n    title: finding {code.lower()}\n"
    f"    malignant: {'true' if code in MALIGNANT_OF_OWN else 'false'}\n"
    f"    synonyms: [kind {number}]\n"
    for number, code in enumerate(OWN_CODES)
)


@dataclass(frozen=True)
class Made:
    """A workspace in which everything up to `ensemble` was run, its list, and its photographs."""

    workspace: Workspace
    classes: ClassList
    images: Path


def melanoma_table(folder: Path) -> tuple[Path, str]:
    """A table of labels as people write them."""
    labels = ["Melanoma", "nevus", "seborrheic keratosis", "melanoma"] * (PER_CLASS // 2)
    rows = ["image,diagnosis,lesion"]
    for number, label in enumerate(labels):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg(number))
        rows.append(f"{number:03d}.jpg,{label},L{number}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv", "melanoma"


def isic2019_layout(folder: Path) -> tuple[Path, str]:
    """The challenge's own tables, with images of every class and one of UNK."""
    columns = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    images = folder / "ISIC_2019_Training_Input"
    images.mkdir()
    truth, metadata = [",".join(["image", *columns])], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    labels = [name for name in columns[:-1] for _ in range(PER_CLASS)] + ["UNK"]
    for number, label in enumerate(labels):
        identity = f"ISIC_{number:07d}"
        (images / f"{identity}.jpg").write_bytes(jpeg(number))
        truth.append(",".join([identity, *("1.0" if name == label else "0.0" for name in columns)]))
        metadata.append(f"{identity},45,back,L{number},female")
    (folder / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (folder / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(metadata) + "\n")
    return folder, "isic2019"


def own_folders(folder: Path) -> tuple[Path, str]:
    """One folder per class, named by its synonym, and the list in a file beside them."""
    (folder / "clinic.yaml").write_text(OWN_YAML)
    for number in range(len(OWN_CODES)):
        kind = folder / "photographs" / f"Kind_{number}"
        kind.mkdir(parents=True)
        for image in range(PER_CLASS):
            (kind / f"{image}.jpg").write_bytes(jpeg(100 * number + image))
    return folder / "photographs", str(folder / "clinic.yaml")


def benign_folders(folder: Path) -> tuple[Path, str]:
    """Three kinds, none of them malignant."""
    (folder / "benign.yaml").write_text(
        "name: benign\nclasses:\n"
        + "".join(f"  - {{code: {code}, title: kind {code.lower()}, malignant: false}}\n" for code in BENIGN)
    )
    for number, code in enumerate(BENIGN):
        kind = folder / "photographs" / code
        kind.mkdir(parents=True)
        for image in range(PER_CLASS):
            (kind / f"{image}.jpg").write_bytes(jpeg(100 * number + image))
    return folder / "photographs", str(folder / "benign.yaml")


MAKERS = {
    "melanoma": melanoma_table,
    "isic2019": isic2019_layout,
    "clinic": own_folders,
}


@pytest.fixture(scope="session", params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A workspace of each list that has malignant classes."""
    return workspace_of(MAKERS[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A workspace of a list without malignant classes."""
    return workspace_of(benign_folders, tmp_path_factory.mktemp("benign"))


def workspace_of(maker: Callable[[Path], tuple[Path, str]], folder: Path) -> Made:
    """From labels to an ensemble: download, train for one epoch, ensemble."""
    from skinlesion_cli.stages.download import stage as download
    from skinlesion_cli.stages.ensemble import stage as ensemble
    from skinlesion_cli.stages.train import stage as train

    source, classes = maker(folder)
    workspace = Workspace(folder / "workspace")
    reporter = SilentReporter()
    download.run(
        download.DownloadSettings(
            workspace=workspace.root, source=source, split="grouped", classes=classes, seed=1
        ),
        reporter,
    )
    train.run(
        train.TrainSettings(
            workspace=workspace.root,
            arch="tiny",
            recipe=small_recipe("epochs=1"),
            weights="none",
            workers=0,
            device="cpu",
        ),
        reporter,
    )
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root, export=False), reporter)
    images = folder if source.is_file() else source
    known = shipped(classes) if Path(classes).suffix == "" else read_class_list(Path(classes))
    return Made(workspace, known, images)
