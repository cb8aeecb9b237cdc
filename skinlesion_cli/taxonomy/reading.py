"""Class lists that people write, as YAML: read strictly, and refused with the line of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy.class_list import PALETTE, ClassList, ClassListError, DiagnosticClass

MAX_BYTES = 256 << 10
_HINT = "`skinlesion download --show-classes isic2018` prints a list to start from."
_ENTRY_KEYS = ("code", "title", "malignant", "colour", "synonyms", "parents")
T = TypeVar("T")


def read_class_list(path: Path) -> ClassList:
    """The class list in a YAML file; its name is that of the file where it gives none.

    Raises
    ------
    UsageError : the file cannot be read, or is no class list; the message names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a class list: {error}", _HINT) from None
    return parse_class_list(text, str(path), path.stem)


def parse_class_list(text: str, where: str, name: str) -> ClassList:
    """The class list in a YAML text. `where` names the text in messages; `name` is for a list without one.

    Raises
    ------
    UsageError : it is no class list; the message gives the line.
    """
    import yaml

    if len(text) > MAX_BYTES:
        raise UsageError(f"{where}: more than {MAX_BYTES:,} bytes", _HINT)
    try:
        # Nodes only, which know their lines; nothing is constructed.
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: cannot be read as YAML: {error}", _HINT) from None
    return _Reader(where).class_list(root, name)


class _Reader:
    """Turns nodes into a class list; keeps the lines for what is only seen of the list as a whole."""

    def __init__(self, where: str) -> None:
        self._where = where

    def refuse(self, node: Any, message: str) -> UsageError:
        line = f", line {node.start_mark.line + 1}" if node is not None else ""
        return UsageError(f"{self._where}{line}: {message}", _HINT)

    def class_list(self, root: Any, name: str) -> ClassList:
        fields = self._mapping(root, ("name", "classes"), "a class list")
        if "classes" not in fields:
            raise self.refuse(root, "`classes` is missing")
        items = self._sequence(fields["classes"])
        nodes = [self._mapping(item, _ENTRY_KEYS, "a class") for item in items]
        entries = tuple(self._entry(*each) for each in zip(range(len(items)), items, nodes, strict=True))
        try:
            return ClassList(self._text(fields["name"]) if "name" in fields else name, entries)
        except ClassListError as error:
            wrong = fields.get(error.key, fields["classes"])
            if error.entry is not None:
                wrong = nodes[error.entry].get(error.key, items[error.entry])
            raise self.refuse(wrong, error.message) from None

    def _entry(self, position: int, item: Any, fields: Mapping[str, Any]) -> DiagnosticClass:
        for key in ("code", "title", "malignant"):
            if key not in fields:
                raise self.refuse(item, f"`{key}` is missing")

        def optional(key: str, read: Callable[[Any], T], default: T) -> T:
            return read(fields[key]) if key in fields else default

        return DiagnosticClass(
            code=self._text(fields["code"]),
            title=self._text(fields["title"]),
            malignant=self._truth(fields["malignant"]),
            colour=optional("colour", self._text, PALETTE[position % len(PALETTE)]),
            synonyms=optional("synonyms", self._texts, ()),
            parents=optional("parents", self._texts, ()),
        )

    def _mapping(self, node: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
        if node is None or node.id != "mapping":
            raise self.refuse(node, f"{what} is a mapping of {', '.join(known)}")
        fields: dict[str, Any] = {}
        for key, value in node.value:
            if key.id != "scalar" or key.value not in known:
                raise self.refuse(key, f"unknown key {key.value!r}; known: {', '.join(known)}")
            if key.value in fields:
                raise self.refuse(key, f"`{key.value}` occurs twice")
            fields[key.value] = value
        return fields

    def _sequence(self, node: Any) -> list[Any]:
        if node.id != "sequence":
            raise self.refuse(node, "a list is expected here")
        items: list[Any] = node.value
        return items

    def _text(self, node: Any) -> str:
        if node.id != "scalar":
            raise self.refuse(node, "text is expected here")
        return str(node.value)

    def _texts(self, node: Any) -> tuple[str, ...]:
        return tuple(map(self._text, self._sequence(node)))

    def _truth(self, node: Any) -> bool:
        if node.id != "scalar" or node.value not in ("true", "false"):
            raise self.refuse(node, "`malignant` is true or false")
        return bool(node.value == "true")
