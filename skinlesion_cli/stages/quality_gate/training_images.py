"""Fingerprints of all images that the networks and the decisions were fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.training_images import StoredTrainingImages
from skinlesion_cli.data.spectrum import read_spectra
from skinlesion_cli.decisions.fingerprints import FingerprintSet, fingerprints_of
from skinlesion_cli.progress import Reporter


def read_training_images(
    images: Path, everything: Manifest, parts: Split, bundle: Bundle | None, reporter: Reporter
) -> tuple[StoredTrainingImages | None, list[str]]:
    """The fingerprints of every image outside the test part, and warnings.

    None where no image has a fingerprint.

    Raises
    ------
    DataError : images cannot be read; they are named.
    """
    files: Sequence[str] = everything.rows(parts.seen_ids())["file"].tolist()
    codes, has_one = fingerprints_of(read_spectra(files, images, reporter, "taking fingerprints"))
    warnings, without = [], len(files) - int(has_one.sum())
    if without:
        warnings.append(
            f"{without:,} of {len(files):,} training images are too smooth to have a fingerprint: `predict` "
            "does not recognise them"
        )
    if without == len(files):
        return None, warnings
    members = bundle.members if bundle is not None else ()
    checkpoints = tuple(member.artifact.sha256 for member in members if member.artifact is not None)
    return StoredTrainingImages(FingerprintSet(codes), len(files), checkpoints), warnings
