"""Does a trained network read the class off the sharpness of the image?

    python examples/sharpness_check.py --workspace skinlesion-workspace --arch efficientnet_lite0

In the 2018 training data as it is often passed on, the images have two resolutions and the smaller ones are
more often malignant. A network that has learned "blurred means malignant" loses when sharpness is taken away
or changed. So the validation images are shown as they are, and again with their sharpness changed alike for
all; the table has the balanced accuracy of each (single view, with a 95 % interval by bootstrap over
lesions), the difference to the images as they are (paired), how often the decision stays the same, and how
many images are called malignant: blur that is taken for malignancy would raise that share.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from skinlesion_cli.artifacts.checkpoint import Checkpoint  # noqa: E402
from skinlesion_cli.artifacts.manifest import Manifest  # noqa: E402
from skinlesion_cli.artifacts.split import Split  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.data.preprocess import to_input  # noqa: E402
from skinlesion_cli.data.reading.images import read_image  # noqa: E402
from skinlesion_cli.decisions.evaluation.figures import Estimate, Figures, Labelled, evaluate  # noqa: E402
from skinlesion_cli.models.network import restore_network  # noqa: E402
from skinlesion_cli.result import percent  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")

Change = Callable[[Image.Image], Image.Image]
BILINEAR = Image.Resampling.BILINEAR


def through(side_px: int) -> Change:
    """Down to this many pixels a side, and back to the size it had."""
    return lambda image: image.resize((side_px, side_px), BILINEAR).resize(image.size, BILINEAR)


def scaled(factor: float) -> Change:
    return lambda image: image.resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC
    )


def jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        return Image.open(io.BytesIO(content.getvalue())).convert("RGB")

    return change


CHANGES: dict[str, Change] = {
    "unchanged": lambda image: image,
    "all resized to 150 x 150": lambda image: image.resize((150, 150), BILINEAR),
    "all resized to 112 x 112": lambda image: image.resize((112, 112), BILINEAR),
    "shrunk to 3/4": scaled(0.75),
    "enlarged to 3/2 (bicubic)": scaled(1.5),
    "down to 100 px and back": through(100),
    "blurred, sigma 1 px": lambda image: image.filter(ImageFilter.GaussianBlur(1.0)),
    "blurred, sigma 2 px": lambda image: image.filter(ImageFilter.GaussianBlur(2.0)),
    "sharpened (unsharp mask)": lambda image: image.filter(ImageFilter.UnsharpMask(1.5, 80, 0)),
    "JPEG quality 70": jpeg(70),
}


def predict(network: torch.nn.Module, images: list[np.ndarray]) -> np.ndarray:
    """Probabilities, float32 (n, 7), single view."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 32):
            found.append(
                network(torch.from_numpy(np.stack(images[start : start + 32]))).softmax(dim=1).numpy()
            )
    return np.concatenate(found)


def judged(rows: pd.DataFrame, probabilities: np.ndarray) -> Figures:
    """Figures of the argmax with their replicates, paired between calls on the same rows."""
    labels = np.array([ISIC2018.index[label] for label in rows["label"]])
    data = Labelled(
        labels, probabilities, probabilities.argmax(axis=1), rows["lesion_id"].to_numpy(), ISIC2018
    )
    return evaluate(data, ranking=False)


def between(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.value:{sign}.3f} | {estimate.low:{sign}.3f} to {estimate.high:{sign}.3f}"


def recall_cells(rows: pd.DataFrame, figures: Figures) -> str:
    counts = rows["label"].value_counts()
    return " | ".join(
        f"{figures.values[f'sensitivity/{name}']:.2f} ({counts[name]})" if name in counts else "undefined (0)"
        for name in ISIC2018.codes
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, default=Path("skinlesion-workspace"))
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--part", default="val", choices=["val", "test"])
    options = parser.parse_args()
    workspace = Workspace(options.workspace)
    manifest = Manifest.load(workspace.manifest)
    rows = manifest.rows(Split.load(workspace.split, manifest).ids(options.part))
    done = Checkpoint.load(workspace.checkpoint(options.arch))
    network = restore_network(done)
    originals = [Image.fromarray(read_image((workspace.images / file).read_bytes())) for file in rows["file"]]
    harmonised = done.preprocessing.harmonise_px
    print(f"{done.name}: {len(rows)} {options.part} images, input {done.preprocessing.input_size_px} px")
    print(f"The network brings every image to {harmonised} px first.\n" if harmonised else "")
    print("| shown | BACC | 95 % interval | difference | 95 % interval | same decision | called malignant |")
    print("|---|---|---|---|---|---|---|")
    base: np.ndarray | None = None
    for name, change in CHANGES.items():
        images = [to_input(np.asarray(change(image)), done.preprocessing) for image in originals]
        probabilities = predict(network, images)
        base = probabilities if base is None else base
        found, reference = judged(rows, probabilities), judged(rows, base)
        decided = probabilities.argmax(axis=1)
        same, malignant = (decided == base.argmax(axis=1)).mean(), ISIC2018.is_malignant[decided].mean()
        difference = found.difference(reference, "bacc")
        print(
            f"| {name} | {between(found.estimate('bacc'))} | {between(difference, '+')} "
            f"| {percent(same)} | {percent(malignant)} |",
            flush=True,
        )
    assert base is not None
    sizes = np.array([f"{image.width} x {image.height}" for image in originals])
    groups = {"all": np.ones(len(rows), dtype=bool)} | {
        f"{size} alone": sizes == size for size, n in Counter(sizes).most_common(3) if n < len(rows)
    }
    print("\n| unchanged | BACC | 95 % interval | " + " | ".join(ISIC2018.codes) + " |")
    print("|---" * (3 + len(ISIC2018.codes)) + "|")
    for name, chosen in groups.items():
        part = rows[chosen]
        found = judged(part, base[chosen])
        print(f"| {name} | {between(found.estimate('bacc'))} | {recall_cells(part, found)} |")


if __name__ == "__main__":
    main()
