"""Whether fingerprints recognise a photograph that was stored again, and mistake no other for it.

    python examples/fingerprint_study.py --images ../shared/isic2018/ISIC2018_Task3_Training_Input \\
        --lesions ../shared/isic2018/HAM10000_metadata.csv \\
        --images ../shared/isic2017/images --lesions ../shared/isic2017/labels.csv

Takes fingerprints of all images. A sample of 1,000 is changed in several ways, read as `predict` reads
images, and compared: with the fingerprint of its original, and with those of every other lesion, in all eight
orientations. Numbers are agreeing signs of 256; `MIN_AGREEMENT` of them make an image count as recognised.

Of ISIC 2018 and ISIC 2017, in images of 224 x 224 pixels, with a limit of 224:

    12,161 images of 9,603 lesions; 0 without fingerprint;
    coefficients above 0.5 grey levels: at least 220, 1 % below 241

                                           with its original         with another lesion
    change                          lowest     1 %  median  recognised   99 %  highest
    JPEG of quality 70                 244     245     252      100.0 %   203      228
    JPEG of quality 30                 218     232     247       99.8 %   202      224
    enlarged to 600 x 450              246     249     254      100.0 %   202      227
    reduced to 112 x 112               243     247     253      100.0 %   202      227
    brighter by 20 %, paler            209     228     251       99.7 %   204      223
    warmer colours                     236     242     253      100.0 %   203      226
    turned by 90 degrees               247     249     254      100.0 %   202      228
    mirrored, JPEG of quality 70       244     245     253      100.0 %   203      228
    cropped by 1 % a side              204     212     240       95.1 %   204      222
    cropped by 5 % a side              135     142     177        0.3 %   201      216

    All images, each against those of every other lesion: images whose highest agreement is
        0 to 159:     20
      160 to 175:  8,874
      176 to 191:  2,653
      192 to 207:    534
      208 to 215:     54
      216 to 219:      8
      220 to 223:      4
      224 to 239:      4
      240 to 256:     10

The 14 images from 224 up are, by eye, 7 pairs of one photograph under two lesion ids, 4 of them recoloured.
So is one pair at 220; the other pairs from 214 to 221 that were looked at are different lesions: small dark
spots on plain skin.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from skinlesion_cli.data.reading.images import read_image  # noqa: E402
from skinlesion_cli.data.spectrum import read_spectra, spectrum  # noqa: E402
from skinlesion_cli.decisions.fingerprints import (  # noqa: E402
    FREQUENCIES,
    MIN_AGREEMENT,
    N_BITS,
    fingerprints_of,
)
from skinlesion_cli.progress import SilentReporter  # noqa: E402
from skinlesion_cli.result import percent  # noqa: E402

TARGET_PX = 224
_BLOCK = 256


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _recoloured(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(1.2)).enhance(0.6)


def _warmer(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (red.point(lambda v: min(255, v + 20)), green, blue.point(lambda v: v * 0.85)))


def _cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    x, y = round(width * share), round(height * share)
    return image.crop((x, y, width - x, height - y))


# What is done to an image, and the quality of the JPEG that it becomes.
CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "JPEG of quality 70": (lambda image: image, 70),
    "JPEG of quality 30": (lambda image: image, 30),
    "enlarged to 600 x 450": (lambda image: image.resize((600, 450), Image.Resampling.BICUBIC), 90),
    "reduced to 112 x 112": (lambda image: image.resize((112, 112), Image.Resampling.LANCZOS), 90),
    "brighter by 20 %, paler": (_recoloured, 90),
    "warmer colours": (_warmer, 90),
    "turned by 90 degrees": (lambda image: image.transpose(Image.Transpose.ROTATE_90), 90),
    "mirrored, JPEG of quality 70": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 70),
    "cropped by 1 % a side": (lambda image: _cropped(image, 0.01), 90),
    "cropped by 5 % a side": (lambda image: _cropped(image, 0.05), 90),
}


def signs_of(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-1 and 1, float32 (n_images, 256), and which images have a fingerprint; 0 in the rows of others."""
    codes, has_one = fingerprints_of(spectra)
    signs = np.zeros((len(spectra), N_BITS), np.float32)
    signs[has_one] = 2.0 * np.unpackbits(codes, axis=1) - 1
    return signs, has_one


def best_agreement(asked: np.ndarray, signs: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """The highest agreement of each row in any orientation with those not excluded, int64 (n,).

    `asked` float32 (n, 256), `signs` float32 (m, 256), `excluded` bool (n, m).
    """
    rows, columns = np.where(FREQUENCIES % 2, -1, 1).astype(np.float32)
    best = np.full(len(asked), -1.0)
    transposed = asked.reshape(len(asked), -1, 2)[:, :, ::-1].reshape(len(asked), N_BITS)
    for way in (asked, transposed):
        for flip in (np.ones(N_BITS, np.float32), rows, columns, rows * columns):
            products = (way * flip) @ signs.T
            products[excluded] = -N_BITS
            best = np.maximum(best, products.max(axis=1))
    result: np.ndarray = ((N_BITS + best) / 2).astype(np.int64)
    return result


def of_others(
    asked: np.ndarray, lesions: np.ndarray, signs: np.ndarray, all_lesions: np.ndarray
) -> np.ndarray:
    """The highest agreement of each row with an image of another lesion."""
    parts = []
    for start in range(0, len(asked), _BLOCK):
        part = slice(start, start + _BLOCK)
        parts.append(best_agreement(asked[part], signs, lesions[part, None] == all_lesions[None, :]))
    return np.concatenate(parts)


def quantiles(values: np.ndarray) -> str:
    low, first, middle = np.quantile(values, [0, 0.01, 0.5], method="lower")
    return f"{low:>7} {first:>7} {middle:>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, action="append", required=True, help="folder of JPEG files")
    parser.add_argument("--lesions", type=Path, action="append", required=True, help="table of lesion ids")
    parser.add_argument("--sample", type=int, default=1000)
    options = parser.parse_args()
    files: list[Path] = []
    lesions: list[str] = []
    for folder, table in zip(options.images, options.lesions, strict=True):
        rows = pd.read_csv(table, dtype=str)
        ids = rows["image_id" if "image_id" in rows else "image"]
        lesion_of = dict(zip(ids.map(lambda name: Path(name).stem), rows["lesion_id"], strict=True))
        found = sorted(path for path in folder.glob("*.jpg") if path.stem in lesion_of)
        files += found
        lesions += [lesion_of[path.stem] for path in found]
    all_lesions = np.array(lesions)
    spectra = read_spectra([str(path) for path in files], Path(), SilentReporter(), "taking fingerprints")
    signs, has_one = signs_of(spectra)
    coefficients = np.abs(spectra[:, FREQUENCIES[0], FREQUENCIES[1]])
    clear = np.sort((coefficients > 0.5).sum(axis=1))
    print(
        f"{len(files):,} images of {len(set(lesions)):,} lesions, {int((~has_one).sum())} without fingerprint"
    )
    print(f"coefficients above 0.5 grey levels: at least {clear[0]}, 1 % below {clear[len(clear) // 100]}")
    print()
    print("                                       with its original         with another lesion")
    print(
        f"{'change':<30} {'lowest':>7} {'1 %':>7} {'median':>7} {'recognised':>11} {'99 %':>6} {'highest':>8}"
    )
    sample = np.sort(np.random.default_rng(0).choice(len(files), options.sample, replace=False))
    for name, (change, quality) in CHANGES.items():
        asked = []
        for index in sample:
            with Image.open(files[index]) as image:
                content = _jpeg(change(image.convert("RGB")), quality)
            asked.append(spectrum(read_image(content, target_px=TARGET_PX)))
        changed, _ = signs_of(np.stack(asked))
        own = np.concatenate(
            [
                best_agreement(changed[row : row + 1], signs[index : index + 1], np.zeros((1, 1), bool))
                for row, index in enumerate(sample)
            ]
        )
        other = of_others(changed, all_lesions[sample], signs, all_lesions)
        share = (own >= MIN_AGREEMENT).mean()
        print(
            f"{name:<30} {quantiles(own)} {percent(share):>12} {np.quantile(other, 0.99, method='lower'):>5} "
            f"{other.max():>8}",
            flush=True,
        )
    others = of_others(signs, all_lesions, signs, all_lesions)
    print()
    print("All images, each against those of every other lesion: images whose highest agreement is")
    edges = [0, 160, 176, 192, 208, 216, 220, 224, 240, 257]
    for low, high in pairwise(edges):
        print(f"  {low:>3} to {high - 1:>3}: {int(((others >= low) & (others < high)).sum()):>6,}")
    for index in np.argsort(-others, kind="stable")[:30]:
        print(f"  {files[index].stem}: {others[index]}")


if __name__ == "__main__":
    main()
