"""The root of the `skinlesion` command, and how a sub-command joins it."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import typer
from typer.core import TyperCommand

from skinlesion_cli import __version__
from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER
from skinlesion_cli.cli import boundary, choices, options, render
from skinlesion_cli.cli.boundary import Invocation
from skinlesion_cli.cli.narrow import NarrowHelp
from skinlesion_cli.parallel import available_cores, library_threads, started_processes
from skinlesion_cli.taxonomy import DISCLAIMER

if TYPE_CHECKING:
    from skinlesion_cli.progress import Reporter
    from skinlesion_cli.result import StageResult

S = TypeVar("S")

app = typer.Typer(
    name="skinlesion",
    cls=boundary.Commands,
    help="From a folder of dermoscopic images to calibrated, explained, triaged results.",
    epilog=DISCLAIMER,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"skinlesion {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


class _Command(NarrowHelp, TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with the names of registries in their help."""
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            parameter.help = choices.with_names(getattr(parameter, "help", None) or "") or None
        return parameters


@dataclass(frozen=True)
class StageCall(Generic[S]):
    """A stage, and the settings to run it with."""

    run: Callable[[S, Reporter], StageResult]
    settings: S


Declared = Callable[..., StageCall[Any]]


def command(
    name: str,
    *,
    example: str,
    section: str,
    streams_rows: bool = False,
    distributed: bool = False,
    threads: Literal["one", "all", "as set"] = "one",
) -> Callable[[Declared], Declared]:
    """Register a function as a sub-command.

    The function declares the command's own options and turns them into settings for its stage. What all
    commands share is done here: `--json`, `--quiet` and `--debug`, and `--workspace` where the function has a
    parameter of that name; progress; running the stage inside the error boundary; showing its result.

    Parameters
    ----------
    example : command lines, one per line, shown in the help.
    section : the panel of `skinlesion --help` that lists the command.
    streams_rows : `--output -` writes rows to stdout, so that everything else goes to stderr.
    distributed : several processes may run the command together; only the first reports.
    threads : with which libraries compute one thing. `one`: the command works on several things side by side;
        `all`: it trains one network; `as set`: it measures, or reports on, the environment as it is.
    """

    def register(function: Declared) -> Declared:
        signature = _signature(function)
        takes_workspace = "workspace" in signature.parameters

        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, debug: bool, **arguments: Any) -> None:
            invocation = Invocation(
                name,
                as_json=as_json,
                quiet=quiet,
                debug=debug,
                rows_on_stdout=streams_rows and str(arguments.get("output")) == "-",
                silent=distributed and not is_first_process(os.environ),
            )
            workspace = arguments.get("workspace") if takes_workspace else None

            def work() -> None:
                with _library_threads(threads):
                    _run(function(**arguments), invocation, workspace)

            boundary.guarded(invocation, work)

        shared = [options.WORKSPACE] if takes_workspace else []
        shared += [options.JSON, options.QUIET, options.DEBUG]
        own = [p for key, p in signature.parameters.items() if key != "workspace"]
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
        body = inspect.getdoc(function) or ""
        short = body.partition("\n\n")[0]
        lines = "\n\n".join(f"  [cyan]{line}[/cyan]" for line in example.strip().splitlines())
        text = f"{body}\n\n[bold]Examples[/bold]\n\n{lines}"
        app.command(name, cls=_Command, help=text, short_help=short, rich_help_panel=section)(run)
        return function

    return register


def _library_threads(threads: str) -> AbstractContextManager[None]:
    """Set before anything heavy is loaded: libraries read it once."""
    if threads == "as set":
        return nullcontext()
    beside = started_processes("LOCAL_WORLD_SIZE")
    return library_threads(1 if threads == "one" else max(available_cores() // beside, 1))


def _signature(function: Declared) -> inspect.Signature:
    """Its parameters with evaluated annotations."""
    return inspect.signature(function, eval_str=True)


def _run(call: StageCall[Any], invocation: Invocation, workspace: Path | None) -> None:
    with render.reporter(quiet=invocation.quiet or invocation.silent) as reporter:
        result = call.run(call.settings, reporter)
    if workspace is not None and result.next_command:
        result = replace(result, next_command=_in_workspace(result.next_command, workspace))
    if not invocation.silent:
        render.finish(
            result, as_json=invocation.as_json, quiet=invocation.quiet, aside=invocation.rows_on_stdout
        )


def _in_workspace(commands: str, workspace: Path) -> str:
    """The commands, with `-w` where they would not find this workspace by themselves."""
    if str(workspace) == os.environ.get("SKINLESION_WORKSPACE", DEFAULT_FOLDER):
        return commands
    return " && ".join(
        f"{part} -w {shlex.quote(str(workspace))}"
        if part.startswith("skinlesion ") and "--model" not in part
        else part
        for part in commands.split(" && ")
    )


def is_first_process(environment: Mapping[str, str]) -> bool:
    """Whether this process is the only one, or the first of a distributed training (torchrun sets both)."""
    return environment.get("WORLD_SIZE", "1") == "1" or environment.get("RANK", "0") == "0"
