"""The pages of the reference, made from the code: commands, columns, recipes, artifacts."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

GENERATED = "*Generated from the code of this version.*\n"


def pages() -> dict[str, str]:
    """Path of each page on the site -> its Markdown."""
    from skinlesion_cli.cli.reference import columns, commands

    return {
        "reference/commands.md": f"# Commands\n\n{GENERATED}\n{commands()}",
        "reference/columns.md": f"# Columns of the predictions\n\n{GENERATED}\n{columns()}",
        "reference/recipes.md": recipes(),
        "reference/triage.md": triage(),
        "reference/artifacts.md": artifacts(),
    }


def triage() -> str:
    """The rules of triage of the bundled model, in the order in which they apply."""
    from skinlesion_cli.artifacts.bundle import Bundle, bundled_model
    from skinlesion_cli.decisions.triage_policy import triage_policy

    bundle = Bundle.load(bundled_model())
    lines = ["# Triage of the bundled model\n", GENERATED, "An image gets the first level that fits.\n"]
    rules = triage_policy(bundle.calibration.rule, has_gate=bundle.gate is not None)
    for number, rule in enumerate(rules, start=1):
        if len(rule.conditions) > 1:
            lines.append(f"{number}. `{rule.level}`, if any of these holds:")
            lines += [f"    - {condition}" for condition in rule.conditions]
        else:
            lines.append(f"{number}. `{rule.level}`: {rule.sentence}")
    return "\n".join(lines) + "\n"


def recipes() -> str:
    """Every setting of a recipe, what it means, and what the shipped recipes set it to."""
    from skinlesion_cli.config import schema
    from skinlesion_cli.config.load import load_recipe, recipe_names

    names = recipe_names()
    shipped = {name: load_recipe(name, "densenet121", environment={}) for name in names}
    lines = [
        "# Recipes\n",
        GENERATED,
        "Settings of a recipe, with what the shipped recipes set for `densenet121`. `--set key=value` "
        "changes one; unknown settings are refused.",
    ]
    for section, fields in settings_of(schema.Recipe):
        lines.append(
            f"\n## {section}\n\n| setting | default | {' | '.join(f'`{n}`' for n in names)} | meaning |"
        )
        lines.append("|---|---|" + "---|" * len(names) + "---|")
        for name, meaning in fields:
            info = schema.Recipe.model_fields[name]
            default = "required" if info.is_required() else f"`{cell(info.get_default())}`"
            values = " | ".join(f"`{cell(getattr(recipe, name))}`" for recipe in shipped.values())
            lines.append(f"| `{name}` | {default} | {values} | {meaning} |")
    return "\n".join(lines) + "\n"


def settings_of(model: type[BaseModel]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Sections of a settings class with its fields, each with the comment above it.

    A comment without a full stop begins a section.
    """
    source = inspect.getsource(model).splitlines()
    (node,) = (n for n in ast.parse("\n".join(source)).body if isinstance(n, ast.ClassDef))
    section: str = "Name"
    fields: list[tuple[str, str]] = []
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        comments: list[str] = []
        above = item.lineno - 2
        while source[above].strip().startswith("#"):
            comments.insert(0, source[above].strip().lstrip("# "))
            above -= 1
        if (
            comments
            and not comments[0].endswith((".", ",", ";", ":"))
            and (len(comments) == 1 or comments[1][:1].isupper() or comments[1][:1].isdigit())
            and len(comments[0].split()) <= 4
        ):
            if fields:
                yield section, fields
            section, fields = comments.pop(0), []
        fields.append((item.target.id, cell(" ".join(comments))))
    yield section, fields


def artifacts() -> str:
    """Every kind of artifact: its version, what it is, and the fields of its body."""
    lines = [
        "# Artifacts\n",
        GENERATED,
        "What stages leave in the workspace: one JSON envelope each, with the payload files that it names. "
        "Readers verify hashes, kind, version, class order, and what it was made from; a newer version "
        "than they know is refused.\n",
        "| kind | version | what it is |\n|---|---|---|",
    ]
    kinds = sorted(_kinds(), key=lambda kind: kind.KIND)
    lines += [f"| [`{k.KIND}`](#{k.KIND}) | {k.SCHEMA_VERSION} | {_of_module(k)} |" for k in kinds]
    for kind in kinds:
        lines.append(f"\n## `{kind.KIND}` {{#{kind.KIND}}}\n\n{_of_module(kind)}\n\n{_of_class(kind)}\n")
        body = _body(kind)
        if body is not None:
            lines += _fields(body)
    return "\n".join(lines) + "\n"


def _kinds() -> list[Any]:
    import skinlesion_cli.artifacts as package
    from skinlesion_cli.artifacts.base import StoredArtifact

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return [kind for kind in StoredArtifact.__subclasses__() if hasattr(kind, "KIND")]


def _of_module(kind: type) -> str:
    return cell((inspect.getdoc(importlib.import_module(kind.__module__)) or "").split("\n\n")[0])


def _of_class(kind: type) -> str:
    return cell((inspect.getdoc(kind) or "").split("\n\n")[0])


def _body(kind: type) -> type[BaseModel] | None:
    """The schema of what it stores: the class named like it."""
    module = importlib.import_module(kind.__module__)
    for name in (f"{kind.__name__}Body", f"{kind.KIND.title().replace('-', '')}Body"):  # type: ignore[attr-defined]
        if hasattr(module, name):
            body: type[BaseModel] = getattr(module, name)
            return body
    return None


def _fields(body: type[BaseModel]) -> list[str]:
    schema = body.model_json_schema()
    required = set(schema.get("required", ()))
    lines = ["| field | type | |\n|---|---|---|"]
    for name, field in schema["properties"].items():
        lines.append(f"| `{name}` | {_type(field)} | {'required' if name in required else 'optional'} |")
    return lines


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return name.removesuffix("Body").removesuffix("Figures") or name
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(option) for option in field["anyOf"]))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = str(field.get("type", "any"))
    if kind == "array" and isinstance(field.get("items"), dict):
        return f"list of {_type(field['items'])}"
    return kind


def cell(value: object) -> str:
    """A value within a cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")
