"""Tiny datasets in every layout that can be read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from skinlesion_cli.data.download.isic2018_files import OfficialFile
from tests.support.class_lists import ISIC2018


def jpeg(seed: int, size: tuple[int, int] = (64, 48), quality: int = 90) -> bytes:
    """A JPEG of coloured noise, different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return file.getvalue()


def ground_truth(labels: dict[str, str], classes: tuple[str, ...] = ISIC2018.codes) -> str:
    rows = [",".join(["image", *classes])]
    rows += [
        ",".join([i, *("1.0" if name == label else "0.0" for name in classes)]) for i, label in labels.items()
    ]
    return "\n".join(rows) + "\n"


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


TRAINING = {f"ISIC_{number:07d}": ISIC2018.codes[number % 7] for number in range(28)}
VALIDATION = {f"ISIC_1{number:06d}": ISIC2018.codes[number % 7] for number in range(7)}
TEST = {f"ISIC_2{number:06d}": ISIC2018.codes[number % 7] for number in range(7)}
# Two images a lesion, both of one class: lesion 0 has images 0 and 7, lesion 14 has 14 and 21, and so on.
LESION_OF = {image: f"HAM_{number - 7 * (number // 7 % 2):07d}" for number, image in enumerate(TRAINING)}
GROUPINGS = "image,lesion_id,diagnosis_confirm_type\n" + "".join(
    f"{image},{lesion},histopathology\n" for image, lesion in LESION_OF.items()
)
METADATA = "lesion_id,image_id,dx,dx_type,age,sex,localization\n" + "".join(
    f"{lesion},{image},{TRAINING[image].lower()},histo,"
    + ("45.0,male,back\n" if number % 2 else ",unknown,unknown\n")
    for number, (image, lesion) in enumerate(LESION_OF.items())
)
LABELS = {"Training": TRAINING, "Validation": VALIDATION, "Test": TEST}


def official_zips() -> dict[str, bytes]:
    """The seven official files, tiny: 28, 7 and 7 images; the training images are padded to 400 kB."""
    files = {"ISIC2018_Task3_Training_LesionGroupings.csv": GROUPINGS.encode()}
    for name, labels in LABELS.items():
        stem = f"ISIC2018_Task3_{name}"
        truth = ground_truth(labels).encode()
        files[f"{stem}_GroundTruth.zip"] = zipped({f"{stem}_GroundTruth/{stem}_GroundTruth.csv": truth})
        images = {f"{stem}_Input/{image}.jpg": jpeg(int(image[5:])) for image in labels}
        padding = {f"{stem}_Input/ATTRIBUTION.txt": b"CC BY-NC"}
        if name == "Training":
            padding[f"{stem}_Input/LICENSE.txt"] = np.random.default_rng(0).bytes(400_000)
        files[f"{stem}_Input.zip"] = zipped(images | padding)
    return files


def catalogue(files: dict[str, bytes]) -> list[OfficialFile]:
    """What is known of `official_zips` beforehand."""
    return [
        OfficialFile(
            name,
            name.split("_")[2].lower(),
            about_bytes=len(content),
            images=len(LABELS[name.split("_")[2]]) if name.endswith("_Input.zip") else 0,
        )
        for name, content in files.items()
    ]


def write_official(folder: Path, *, metadata: bool = True) -> Path:
    """The official layout unzipped, training part only."""
    images = folder / "ISIC2018_Task3_Training_Input"
    images.mkdir(parents=True)
    for image in TRAINING:
        (images / f"{image}.jpg").write_bytes(jpeg(int(image[5:])))
    (folder / "ISIC2018_Task3_Training_GroundTruth.csv").write_text(ground_truth(TRAINING))
    (folder / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(GROUPINGS)
    if metadata:
        (folder / "HAM10000_metadata.csv").write_text(METADATA)
    return folder
