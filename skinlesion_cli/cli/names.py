"""Names that an option takes, from the registry that owns them.

Help and completion must be quick, but most registries live beside code that needs numpy, pandas or torch.
So the names are read from the source text of the registry's module, which is imported only if that does not
show them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import skinlesion_cli

_PACKAGE = Path(skinlesion_cli.__file__).parent


@cache
def names_of(registry: str) -> tuple[str, ...]:
    """The names in a registry such as `models.devices.NAMES`: a mapping's keys, or the items of a tuple.

    Where the registry is a function, what it returns.
    """
    module, _, attribute = registry.rpartition(".")
    try:
        return tuple(_read(module, attribute))
    except (OSError, SyntaxError, LookupError):
        return imported_names(registry)


def imported_names(registry: str) -> tuple[str, ...]:
    """The same, from the imported module."""
    module, _, attribute = registry.rpartition(".")
    names = getattr(import_module(f"skinlesion_cli.{module}"), attribute)
    return tuple(names() if callable(names) else names)


def _read(module: str, attribute: str) -> Iterator[str]:
    """LookupError where the names are not written out in the module."""
    tree = ast.parse(_PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_bytes())
    yield from _strings(_assigned(tree, attribute), tree)


def _strings(value: ast.expr, tree: ast.Module) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Dict(keys=items) | ast.Tuple(elts=items) | ast.List(elts=items):
            for item in items:
                if item is None:
                    raise LookupError("a mapping that takes in another")
                yield from _strings(item, tree)
        case ast.Name(id=name):
            yield from _strings(_assigned(tree, name), tree)
        case ast.Starred(value=inner) | ast.Call(func=ast.Name(id="tuple"), args=[inner]):
            yield from _strings(inner, tree)
        case _:
            raise LookupError("names that are computed")


def _assigned(tree: ast.Module, name: str) -> ast.expr:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                return value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                for each, item in zip(targets, values, strict=True):
                    if isinstance(each, ast.Name) and each.id == name:
                        return item
    raise LookupError(name)


def listed(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
