"""What is installed: Python, the libraries, and whether they load."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from typing import Any

from skinlesion_cli.stages.doctor.finding import DoctorSettings, Finding

_MODULES = {
    "prediction": ("skinlesion_cli.stages.predict.worker", "onnxruntime"),
    "explanations": ("skinlesion_cli.explain.writer",),
    "pages": ("skinlesion_cli.report.batch", "skinlesion_cli.report.plots_evaluation"),
}
# These load torch, which takes seconds, and which prediction does without.
_TRAINING_MODULES = {
    "training": ("skinlesion_cli.models.training.trainer", "skinlesion_cli.data.training.augmentation"),
    "other runtimes and methods": ("skinlesion_cli.inference.runtimes.torch", "pytorch_grad_cam"),
}


def python(_settings: DoctorSettings) -> Iterator[Finding]:
    version, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    yield Finding("python", "ok", f"{version} on {system}", figures={"python": version, "system": system})


def libraries(_settings: DoctorSettings) -> Iterator[Finding]:
    """Required libraries as the package's own metadata states them, then its extras."""
    from packaging.requirements import Requirement

    try:
        stated = [Requirement(text) for text in metadata.requires("skinlesion") or ()]
    except metadata.PackageNotFoundError:
        yield Finding(
            "libraries",
            "advice",
            "skinlesion runs from a source folder: its requirements are unknown",
            "Install it: pip install .",
        )
        return
    required = {r.name: r for r in stated if r.marker is None or r.marker.evaluate({"extra": ""})}
    versions = {name: _version(name) for name in required}
    wrong = {name: r for name, r in required.items() if not _fits(r, versions[name])}
    for name, requirement in wrong.items():
        there = (
            f"{versions[name]} is installed, {requirement.specifier} is needed"
            if versions[name]
            else "is missing"
        )
        yield Finding("libraries", "problem", f"{name} {there}", f"pip install '{requirement}'")
    main = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "torchvision", "timm", "numpy") if name in versions
    )
    if not wrong:
        yield Finding("libraries", "ok", f"all {len(required)} that are required; {main}", figures=versions)
    extras = sorted(metadata.metadata("skinlesion").get_all("Provides-Extra") or ())
    yield from _extras(
        {
            extra: [
                r
                for r in stated
                if r.marker and r.marker.evaluate({"extra": extra}) and r.name not in required
            ]
            for extra in extras
        }
    )


def image_kinds(_config: DoctorSettings) -> Iterator[Finding]:
    """Which compressions of images and DICOM files can be decoded here."""
    from skinlesion_cli.data.reading.decoders import decoders

    available = decoders()
    lacking = [name for name, there in available.items() if not there]
    readable = ", ".join(name for name, there in available.items() if there)
    advice = f"; not: {', '.join(lacking)} (pip install 'skinlesion[dicom,heif]')" if lacking else ""
    yield Finding("image kinds", "ok", readable + advice, figures=available)


def _extras(stated: Mapping[str, list[Any]]) -> Iterator[Finding]:
    """Optional libraries: only an extra that is installed in part is worth advice."""
    versions = {r.name: _version(r.name) for group in stated.values() for r in group}
    whole, absent = [], []
    for extra, group in stated.items():
        if all(_fits(r, versions[r.name]) for r in group):
            whole.append(extra)
        elif not any(versions[r.name] for r in group):
            absent.append(extra)
        else:
            lacking = ", ".join(str(r) for r in group if not _fits(r, versions[r.name]))
            shown = f"{extra} is installed in part; missing: {lacking}"
            yield Finding("extras", "advice", shown, f"pip install 'skinlesion[{extra}]'")
    shown = f"installed: {', '.join(whole) or 'none'}; not: {', '.join(absent) or 'none'}"
    yield Finding("extras", "ok", shown, figures=versions)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Any, version: str | None) -> bool:
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def loading(settings: DoctorSettings) -> Iterator[Finding]:
    """Installed is not enough: a library may miss a system file and fail when it is loaded."""
    checked = _MODULES | (_TRAINING_MODULES if settings.training else {})
    for modules in checked.values():
        for module in modules:
            import_module(module)
    more = "" if settings.training else "; training: see --training"
    yield Finding("loading", "ok", f"{', '.join(checked)}: every module loads{more}")
