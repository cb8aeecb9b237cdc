"""Models on the hub, against a hub that lives in this process and takes the calls of its library."""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from safetensors.numpy import load

from skinlesion_cli.artifacts import exports, hub
from skinlesion_cli.artifacts.bundle import Bundle, locate_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError, SkinLesionError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import pack

NAME = "hf://clinic/lesions"


class FakeHub:
    """Repositories as lists of commits, each a mapping of paths to bytes; files above 1 kB count as large."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.calls: list[str] = []
        self.reachable = True
        self.damage: str | None = None

    def called(self, method: str, *arguments: Any, **named: Any) -> dict[str, Any]:
        bound = inspect.signature(getattr(HfApi, method)).bind(self, *arguments, **named)
        self.calls.append(method)
        if not self.reachable:
            raise ConnectionError("Name or service not known")
        return bound.arguments

    def create_repo(self, *arguments: Any, **named: Any) -> None:
        given = self.called("create_repo", *arguments, **named)
        self.repos.setdefault(given["repo_id"], {})
        self.private.setdefault(given["repo_id"], given["private"])

    def upload_folder(self, *arguments: Any, **named: Any) -> Any:
        given = self.called("upload_folder", *arguments, **named)
        commits = self.repos[given["repo_id"]]
        before = next(reversed(commits.values()), {})
        kept = {n: c for n, c in before.items() if not self.matches(n, given["delete_patterns"])}
        folder = Path(given["folder_path"])
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        kept |= {n: c for n, c in files.items() if self.matches(n, given["allow_patterns"])}
        oid = hashlib.sha1(repr(sorted(kept.items())).encode()).hexdigest()
        commits[oid] = kept
        return SimpleNamespace(oid=oid)

    def model_info(self, *arguments: Any, **named: Any) -> Any:
        given = self.called("model_info", *arguments, **named)
        commit, files = self.commit(given["repo_id"], given.get("revision"))
        siblings = []
        for name, content in files.items():
            stored = content + b"!" if name == self.damage else content
            digest = hashlib.sha256(stored[:-1] + b"?" if name == self.damage else stored).hexdigest()
            lfs = SimpleNamespace(sha256=digest) if len(stored) > 1000 else None
            siblings.append(SimpleNamespace(rfilename=name, size=len(stored), lfs=lfs))
        return SimpleNamespace(sha=commit, siblings=siblings)

    def snapshot_download(self, *arguments: Any, **named: Any) -> str:
        given = self.called("snapshot_download", *arguments, **named)
        _, files = self.commit(given["repo_id"], given["revision"])
        for name, content in files.items():
            if self.matches(name, given["allow_patterns"]):
                path = Path(given["local_dir"]) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return str(given["local_dir"])

    def commit(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        from httpx2 import Request, Response
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        answer = Response(404, request=Request("GET", "https://hub/"))
        if repo not in self.repos:
            raise RepositoryNotFoundError("404", response=answer)
        commits = self.repos[repo]
        commit = next(reversed(commits)) if revision in (None, "main") else revision
        if commit not in commits:
            raise RevisionNotFoundError("404", response=answer)
        return commit, commits[commit]

    @staticmethod
    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    there = FakeHub()
    monkeypatch.setattr(hub, "_api", lambda: there)
    monkeypatch.setenv("SKINLESION_CACHE", str(tmp_path / "cache"))
    return there


@pytest.fixture
def made(tiny_model: Path, tmp_path: Path) -> Path:
    """A finished model; its graph is not one that could be run, which nothing here does."""
    root = Path(shutil.copytree(tiny_model, tmp_path / "ws"))
    checkpoint = Checkpoint.load(Workspace(root).checkpoint("tiny-fold0"))
    classifier = next(name for name in load(checkpoint.weights) if name.endswith("classifier.weight"))
    exports.Export.of_graph(checkpoint, b"graph", [classifier], classifier, {}).save_for(checkpoint)
    return root


def pushed(made: Path, output: Path, **more: Any) -> str:
    settings = pack.PackSettings(workspace=made, output=output, push=NAME, **more)
    return str(pack.run(settings, SilentReporter()).figures["commit"])


def test_a_model_goes_to_the_hub_and_comes_back_the_same(fake: FakeHub, made: Path, tmp_path: Path) -> None:
    (made / "models" / "tiny-fold0" / "notes.pkl").write_bytes(b"not for others")
    commit = pushed(made, tmp_path / "packed")
    assert fake.private == {"clinic/lesions": True}
    files = fake.repos["clinic/lesions"][commit]
    assert {Path(name).suffix for name in files} == {".json", ".csv", ".safetensors", ".onnx", ".md"}
    sha256 = Bundle.load(Workspace(made)).sha256
    card = files["README.md"].decode()
    assert card.startswith("---\n")
    assert sha256 in card
    assert "Not a medical device" in card
    # As another user finds it, with a file beside that has no place in a model.
    files["models/tiny-fold0/setup.py"] = b"raise SystemExit"
    for revision in ("", "@main", f"@{commit}"):
        place = locate_model(Workspace(tmp_path / "none"), NAME + revision)
        assert Bundle.load(place).sha256 == sha256
    assert place.root == tmp_path / "cache" / "hub" / "clinic--lesions" / commit
    assert not list(place.root.rglob("*.py"))
    assert not list(place.root.rglob("*.md"))
    assert fake.calls.count("snapshot_download") == 1


def test_a_commit_that_is_here_needs_no_network_and_a_branch_does(
    fake: FakeHub, made: Path, tmp_path: Path
) -> None:
    commit = pushed(made, tmp_path / "packed")
    hub.fetched(f"{NAME}@{commit}")
    fake.reachable = False
    assert hub.fetched(f"{NAME}@{commit}").name == commit
    with pytest.raises(SkinLesionError, match="could not be found: Name or service"):
        hub.fetched(NAME)
    with pytest.raises(SkinLesionError, match="could not be fetched"):
        hub.fetched(f"{NAME}@{'0' * 40}")
    assert not [path for path in (tmp_path / "cache").rglob("0*") if path.is_dir()]


def test_what_is_not_there_or_damaged_is_refused(fake: FakeHub, made: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not on the hub"):
        hub.fetched(NAME)
    commit = pushed(made, tmp_path / "packed")
    with pytest.raises(ArtifactError, match="is not on the hub"):
        hub.fetched(f"{NAME}@v2")
    files = fake.repos["clinic/lesions"][commit]
    weights = next(name for name in files if name.endswith(".safetensors"))
    files[weights] = files[weights][:-1] + b"!"
    with pytest.raises(ArtifactError, match="is damaged"):
        Bundle.load(locate_model(Workspace(tmp_path / "none"), NAME))


def test_an_upload_that_was_stored_otherwise_is_an_error(fake: FakeHub, made: Path, tmp_path: Path) -> None:
    fake.damage = "ensemble/ensemble.json"
    with pytest.raises(
        SkinLesionError, match=r"stored something else in clinic/lesions: ensemble/ensemble\.json"
    ):
        pushed(made, tmp_path / "packed")


def test_a_second_version_replaces_the_first_and_keeps_the_card_that_was_given(
    fake: FakeHub, made: Path, tmp_path: Path
) -> None:
    first = pushed(made, tmp_path / "one", public=True)
    fake.repos["clinic/lesions"][first]["models/old/checkpoint.json"] = b"{}"
    (tmp_path / "card.md").write_text("# Ours\n")
    calibration = made / "calibration" / "calibration.json"
    second = pushed(made, tmp_path / "two", card=tmp_path / "card.md")
    assert calibration.exists()
    files = fake.repos["clinic/lesions"][second]
    assert files["README.md"] == b"# Ours\n"
    assert "models/old/checkpoint.json" not in files
    assert fake.private == {"clinic/lesions": False}


@pytest.mark.parametrize(
    "name", ["hf://", "hf://lesions", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a/b@x y"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="not a name of a model on the hub"):
        hub.HubName.parse(name)


def test_what_does_not_go_together(fake: FakeHub, made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belong to --push"):
        pack.PackSettings(workspace=made, output=tmp_path / "p", public=True)
    settings = pack.PackSettings(workspace=made, output=tmp_path / "p", push=f"{NAME}@main")
    with pytest.raises(UsageError, match="names a revision"):
        pack.run(settings, SilentReporter())
    assert not (tmp_path / "p").exists()
    assert fake.calls == []
