"""Packed models on the Hugging Face hub: `hf://owner/name`, with `@revision` for a branch, tag or commit.

What comes from there is read like any packed model from elsewhere: artifacts are verified by their hashes,
only JSON, CSV, safetensors and ONNX files are fetched, and nothing in them is executed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skinlesion_cli.artifacts.files import exclusive, replace_file, sha256_file
from skinlesion_cli.artifacts.user_cache import user_cache
from skinlesion_cli.errors import ArtifactError, SkinLesionError, UsageError, name_items

SCHEME: Final = "hf://"
CARD: Final = "README.md"
_NAME = re.compile(r"hf://(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FOLDERS = ("models", "ensemble", "calibration")
_SUFFIXES = (".json", ".csv", ".safetensors", ".onnx")
_PATTERNS = [f"{folder}/*{suffix}" for folder in _FOLDERS for suffix in _SUFFIXES]


@dataclass(frozen=True)
class HubName:
    """A model on the hub; `revision` None: its default branch."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """
        Raises
        ------
        UsageError : it is not `hf://owner/name` or `hf://owner/name@revision`.
        """
        match = _NAME.fullmatch(text)
        if match is None or ".." in text:
            raise UsageError(f"{text} is not a name of a model on the hub", "Form: hf://owner/name@revision")
        return cls(match["repo"], match["revision"])


def is_hub_name(text: str) -> bool:
    return text.startswith(SCHEME)


def fetched(text: str) -> Path:
    """The folder of a model of the hub in the user's cache; fetched first where it is not there yet.

    A commit (40 digits) that was fetched before needs no network. Any other revision is asked for each time:
    which model judges an image is never decided by what happens to be in the cache.

    Raises
    ------
    UsageError : no such name. ArtifactError : the hub has no such model or revision.
    SkinLesionError : the hub cannot be reached.
    """
    name = HubName.parse(text)
    commit = name.revision if _COMMIT.fullmatch(name.revision or "") else None
    if commit is None:
        with _hub_errors(name, "found"):
            commit = str(_api().model_info(name.repo, revision=name.revision).sha)
        if not _COMMIT.fullmatch(commit):
            raise ArtifactError(f"the hub names no commit of {text}")
    folder = user_cache() / "hub" / name.repo.replace("/", "--") / commit
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(f".{commit}.unfinished")
    with exclusive(folder.parent, "fetch"), _hub_errors(name, "fetched"):
        if folder.is_dir():  # by another process, meanwhile
            return folder
        # In a folder of its own, not in the cache of the hub's library: that is made of links.
        _api().snapshot_download(
            name.repo, revision=commit, local_dir=unfinished, allow_patterns=list(_PATTERNS)
        )
        shutil.rmtree(unfinished / ".cache", ignore_errors=True)
        replace_file(unfinished, folder)
    return folder


def push(folder: Path, text: str, *, public: bool, message: str) -> str:
    """Upload a packed model and its card; returns the commit, whose files were compared with those here.

    A repository that is not there yet is made: private, unless `public`.

    Raises
    ------
    UsageError : no such name, or one with a revision.
    SkinLesionError : the hub cannot be reached, refuses, or has stored something else.
    """
    name = HubName.parse(text)
    if name.revision is not None:
        raise UsageError(f"{text} names a revision; --push makes one", f"Use {SCHEME}{name.repo}.")
    api = _api()
    with _hub_errors(name, "written"):
        api.create_repo(name.repo, repo_type="model", private=not public, exist_ok=True)
        pushed = api.upload_folder(
            repo_id=name.repo,
            folder_path=folder,
            repo_type="model",
            allow_patterns=[*_PATTERNS, CARD],
            # What an earlier version of the model had and this one lacks would be fetched with it.
            delete_patterns=list(_PATTERNS),
            commit_message=message,
        )
        commit = str(pushed.oid)
        stored = api.model_info(name.repo, revision=commit, files_metadata=True).siblings or []
    _require_same(folder, stored, name)
    return commit


def local_files(folder: Path) -> dict[str, Path]:
    """The files of a packed model that are pushed, by their path below it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        own: path
        for own, path in files.items()
        if own == CARD or (own.partition("/")[0] in _FOLDERS and path.suffix in _SUFFIXES)
    }


def _require_same(folder: Path, stored: list[Any], name: HubName) -> None:
    """Compare sizes, and the hashes of the files that the hub stores by hash (the large ones)."""
    there = {file.rfilename: file for file in stored}
    differing = []
    for own, path in local_files(folder).items():
        file = there.get(own)
        if (
            file is None
            or file.size != path.stat().st_size
            or (file.lfs is not None and file.lfs.sha256 != sha256_file(path))
        ):
            differing.append(own)
    if differing:
        raise SkinLesionError(
            f"the hub has stored something else in {name.repo}: {name_items(differing)}", "Push it again."
        )


def _api() -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(library_name="skinlesion")


@contextmanager
def _hub_errors(name: HubName, what: str) -> Iterator[None]:
    from huggingface_hub import errors

    place = f"{SCHEME}{name.repo}" + (f"@{name.revision}" if name.revision else "")
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ArtifactError(
            f"{place} is not on the hub, or you have no access to it",
            "Check the name and the revision; for a private model log in: `hf auth login`.",
        ) from error
    except SkinLesionError:
        raise
    except Exception as error:  # the library passes on those of its HTTP client
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SkinLesionError(
            f"{place} could not be {what}: {reason}",
            "Check the network and your login (`hf auth login`). A commit that was fetched before "
            "(hf://owner/name@COMMIT) needs no network.",
        ) from error
