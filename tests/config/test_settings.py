"""Settings of the stages: checked once, frozen, and every bad value is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.errors import UsageError


class Painting(StageSettings):
    colour: Annotated[str, one_of(["red", "green"], also=("auto",))] = "auto"
    coats: Annotated[int, Field(ge=1, le=3)] = 1
    folder: Path

    @model_validator(mode="after")
    def _red_covers(self) -> Self:
        if self.colour == "red" and self.coats > 2:
            raise ValueError("red needs no third coat")
        return self


def refusal(**values: object) -> str:
    with pytest.raises(UsageError) as caught:
        Painting(**values)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return caught.value.message


def test_good_settings_are_kept_and_frozen() -> None:
    settings = Painting(folder="x", colour="green")  # type: ignore[arg-type]
    assert (settings.folder, settings.colour, settings.coats) == (Path("x"), "green", 1)
    with pytest.raises(ValidationError):
        settings.coats = 2  # type: ignore[misc]


def test_every_bad_value_is_named_at_once() -> None:
    lines = refusal(colour="rd", coats=0, colours="red").splitlines()
    assert [line.split(":")[0] for line in lines] == ["colour", "coats", "folder", "colours"]
    assert "did you mean 'red'?" in lines[0]
    assert "auto, red, green" in lines[0]
    assert "got 0" in lines[1]
    assert "did you mean 'colour'?" in lines[3]


def test_settings_that_contradict_each_other() -> None:
    assert refusal(folder="x", colour="red", coats=3) == "red needs no third coat"


def test_changed_settings_are_checked_again() -> None:
    settings = Painting(folder=Path("x"))
    assert settings.replace(coats=2) == Painting(folder=Path("x"), coats=2)
    with pytest.raises(UsageError):
        settings.replace(coats=4)
