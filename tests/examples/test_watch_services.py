"""The service files that watch a folder: what they run is a command that exists, the rest is locked down."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest
import yaml

from skinlesion_cli.cli import app

ROOT = Path(__file__).resolve().parents[2]
WATCH = ROOT / "examples" / "watch"


def unit() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(WATCH / "skinlesion-watch.service", encoding="utf-8")
    assert parser["Unit"]["RequiresMountsFor"] == "/srv/dermoscopy"
    assert parser["Install"]["WantedBy"] == "multi-user.target"
    return dict(parser["Service"])


def service() -> dict[str, object]:
    return yaml.safe_load((WATCH / "compose.yaml").read_text("utf-8"))["services"]["skinlesion"]


@pytest.mark.parametrize("which", ["systemd", "compose"])
def test_the_command_of_a_service_is_understood(which: str) -> None:
    import typer.main

    words = shlex.split(unit()["ExecStart"])[1:] if which == "systemd" else list(service()["command"])  # type: ignore[call-overload]
    group = typer.main.get_command(app.app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    parsed = command.make_context(words[0], words[1:]).params
    assert parsed["watch"]
    assert parsed["report"]
    assert len(parsed["inputs"]) == 1
    assert parsed["output"].suffix == ".csv"


def test_services_have_no_network_and_do_not_write_to_the_inbox() -> None:
    settings = unit()
    assert (settings["PrivateNetwork"], settings["ProtectSystem"]) == ("yes", "strict")
    assert settings["ReadOnlyPaths"] == "/srv/dermoscopy/inbox"
    # 143 is what a program that was ended by SIGTERM returns.
    assert settings["SuccessExitStatus"] == "143"
    container = service()
    assert (container["network_mode"], container["read_only"]) == ("none", True)
    assert "./inbox:/inbox:ro" in container["volumes"]  # type: ignore[operator]
