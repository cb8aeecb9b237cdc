"""The machine: devices, cores, disk, and (with `--network`) the servers that data come from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.stages.doctor.finding import DoctorSettings, Finding

_LITTLE_SPACE_BYTES = 200e6
_HUB_SAMPLE = "resnet50"


def devices(_settings: DoctorSettings) -> Iterator[Finding]:
    from skinlesion_cli.inference.loading import gpu_is_there

    if not gpu_is_there():
        # Loading torch to learn the same would take seconds.
        yield Finding("devices", "ok", "CPU only", figures={"gpus": []})
        return
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    names += ["Apple MPS"] if torch.backends.mps.is_available() else []
    figures = {"torch": torch.__version__, "gpus": names}
    if not names:
        yield Finding(
            "devices",
            "advice",
            f"there is a GPU, but torch {torch.__version__} cannot use it: CPU only",
            "Install a build of torch for it: https://pytorch.org/get-started/locally",
            figures,
        )
        return
    yield Finding("devices", "ok", ", ".join(names), figures=figures)


def threads(_settings: DoctorSettings) -> Iterator[Finding]:
    from skinlesion_cli import parallel

    cores, quota, asked = (
        parallel.affinity_cores(),
        parallel.container_cores(),
        os.environ.get("OMP_NUM_THREADS", ""),
    )
    busy, machine_cores = parallel.busy_cores(), os.cpu_count() or 1
    figures = {"cores": cores, "quota_cores": quota, "omp_num_threads": asked or None, "busy_threads": busy}
    shown = f"{cores} cores" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    if quota is not None and quota < cores:
        # Predict and train count no more cores than these.
        yield Finding("threads", "ok", f"{shown}, of which this container may use {quota:g}", figures=figures)
    elif asked.isdigit() and int(asked) > cores:
        yield Finding(
            "threads", "advice", shown, "Unset OMP_NUM_THREADS, or set it to the number of cores.", figures
        )
    elif busy is not None and busy >= machine_cores:
        yield Finding(
            "threads",
            "advice",
            f"{shown}; other programs keep {busy:g} threads busy on {machine_cores} cores",
            "Commands share the cores and take longer: measure times when the machine is idle.",
            figures,
        )
    else:
        yield Finding("threads", "ok", shown, figures=figures)


def disk(settings: DoctorSettings) -> Iterator[Finding]:
    from skinlesion_cli.data.download.isic2018_files import OFFICIAL_FILES

    root = settings.workspace.absolute()
    existing = next(parent for parent in (root, *root.parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    # The archives, and the images that are taken out of them.
    dataset_bytes = 2 * sum(file.about_bytes for file in OFFICIAL_FILES)
    shown, figures = f"{free_bytes / 1e9:.1f} GB free for {settings.workspace}", {"free_bytes": free_bytes}
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield Finding(
            "disk",
            "problem",
            f"{settings.workspace} cannot be written",
            "Choose another --workspace.",
            figures,
        )
    elif free_bytes < _LITTLE_SPACE_BYTES:
        yield Finding("disk", "problem", shown, "Free some space, or choose another --workspace.", figures)
    elif free_bytes < dataset_bytes and not Workspace(root).manifest.exists():
        to_do = f"Fetching ISIC 2018 takes {dataset_bytes / 1e9:.1f} GB: free some space first."
        yield Finding("disk", "advice", shown, to_do, figures)
    else:
        yield Finding("disk", "ok", shown, figures=figures)


def network(_settings: DoctorSettings) -> Iterator[Finding]:
    from huggingface_hub import hf_hub_url

    from skinlesion_cli.data.download.http import Patience, Unreachable, open_client, status
    from skinlesion_cli.data.download.isic2018_files import BASE_URLS, OFFICIAL_FILES
    from skinlesion_cli.models.backbones import BACKBONES
    from skinlesion_cli.models.pretrained import HUB_FILE

    patience = Patience(tries=1, timeout_s=5.0, answer_s=15.0)
    urls = {f"ISIC archive, {n}": base + OFFICIAL_FILES[0].name for n, base in enumerate(BASE_URLS, start=1)}
    urls["model hub"] = hf_hub_url(str(BACKBONES[_HUB_SAMPLE].hub_id), HUB_FILE)
    for name, url in urls.items():
        host = url.split("/")[2]
        try:
            with open_client(patience) as client:
                answer = status(client, url, patience)
            yield Finding(name, "ok", f"{host} answers {answer}", figures={"status": answer})
        except (Unreachable, SkinLesionError) as error:
            to_do = (
                "Behind a proxy set HTTPS_PROXY. Without a network: `download --from`, and `train "
                "--weights FILE`."
            )
            yield Finding(name, "problem", f"{host}: {error}", to_do)
