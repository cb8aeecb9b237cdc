"""One self-contained page: everything inside, no network, nothing that a file name could start.

Text goes through Jinja2's autoescape. The page forbids itself every connection, and every script but the one
whose hash it states (Content Security Policy).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from skinlesion_cli import __version__
from skinlesion_cli.taxonomy import DISCLAIMER, ClassList


def asset(name: str) -> str:
    """Text of a file in `report/pages`."""
    return resources.files("skinlesion_cli.report").joinpath("pages", name).read_text(encoding="utf-8")


def script_json(value: Any) -> Markup:
    """A value as JSON that may stand inside a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Lone surrogates come from file names that are no UTF-8; they have no place in a UTF-8 file.
    return Markup(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def data_uri(data: bytes, kind: str) -> str:
    """An image as an address; `kind` such as `image/png`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def render(template: str, classes: ClassList, scripts: Sequence[str] = (), **values: Any) -> str:
    """The page of a template in `report/pages`, with the style and the named scripts, joined, inside.

    `classes` is what the page is about.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    code = "\n".join(map(asset, scripts))
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if scripts else "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(
        policy=policy,
        style=Markup(asset("style.css")),
        script=Markup(code),
        version=__version__,
        disclaimer=DISCLAIMER,
        class_names=classes.codes,
        class_titles=classes.titles,
        **values,
    )


def facts_table(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """Facts as rows of text; what is None is said to be unknown."""
    return [(name, "unknown" if value is None else str(value)) for name, value in facts.items()]
