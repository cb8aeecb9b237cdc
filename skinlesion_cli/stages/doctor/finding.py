"""The settings of the doctor, and its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from skinlesion_cli.config.settings import StageSettings

State = Literal["ok", "advice", "problem"]
REINSTALL = "Install skinlesion again, in an environment of its own: pip install --force-reinstall skinlesion"


class DoctorSettings(StageSettings):
    """`network`: also ask the servers that `download` and `train` fetch from whether they answer.

    `training`: also load what training needs, torch among it.
    """

    workspace: Path
    network: bool = False
    training: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of one check. `to_do` says what to do about it; empty where all is well."""

    check: str
    state: State
    found: str
    to_do: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


Check = Callable[[DoctorSettings], Iterator[Finding]]
