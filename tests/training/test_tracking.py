"""Epochs recorded by the clients of MLflow and Weights & Biases.

The clients are not installed where the tests run: `FakeMLflow` and `FakeWandB` stand for their modules and
record the calls, with the signatures of mlflow 3.17 and wandb 0.31. What a server makes of the calls is not
shown here.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.models.training import trainer as loop
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.train import fitting, watching
from skinlesion_cli.stages.train import stage as train
from tests.training.small import Said, small_recipe


class FakeMLflow:
    """The module mlflow, and its client: runs in memory."""

    def __init__(self) -> None:
        self.uris, self.locations, self.runs, self.experiments, self.fails = [], [], {}, {}, set()

    def MlflowClient(self, tracking_uri):
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name, artifact_location=None):
        self.locations.append(artifact_location)
        self.experiments[name] = f"experiment {name}"
        return self.experiments[name]

    def create_run(self, experiment_id, run_name):
        if "create_run" in self.fails:
            raise ConnectionError("refused\nby the server")
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = {
            "experiment": experiment_id,
            "name": run_name,
            "params": {},
            "metrics": [],
            "status": ["RUNNING"],
        }
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_param(self, run_id, key, value):
        self.runs[run_id]["params"][key] = value

    def log_metric(self, run_id, key, value, step):
        if "log_metric" in self.fails:
            raise ConnectionError("gone")
        self.runs[run_id]["metrics"].append((key, value, step))

    def update_run(self, run_id, status):
        self.runs[run_id]["status"].append(status)

    def set_terminated(self, run_id, status):
        self.runs[run_id]["status"].append(status)


class FakeWandB:
    """The module wandb."""

    def __init__(self) -> None:
        self.started, self.logged, self.finished = [], [], []

    def Settings(self, **settings):
        return settings

    def init(self, **arguments):
        self.started.append(arguments)
        return SimpleNamespace(
            id=arguments["id"] or f"run{len(self.started)}",
            offline=True,
            log=lambda figures, step: self.logged.append((step, figures)),
            finish=lambda exit_code: self.finished.append(exit_code),
        )


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mlflow(monkeypatch) -> FakeMLflow:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


@pytest.fixture
def wandb(monkeypatch) -> FakeWandB:
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def interrupt_second_epoch(config, monkeypatch):
    original = watching.Watcher.__call__

    def cut(self, history, time):
        if len(history) == 2:
            raise KeyboardInterrupt
        original(self, history, time)

    with monkeypatch.context() as patch:
        patch.setattr(watching.Watcher, "__call__", cut)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, SilentReporter())


def test_mlflow_records_settings_and_every_epoch_in_the_workspace(config, mlflow):
    said = Said()
    train.run(config.replace(logs=("mlflow",)), said)
    workspace = Workspace(config.workspace)
    assert mlflow.uris == [f"sqlite:///{workspace.root.resolve().as_posix()}/mlflow.db"]
    assert mlflow.locations == [(workspace.root.resolve() / "mlruns").as_uri()]
    (run,) = mlflow.runs.values()
    assert (run["experiment"], run["name"]) == ("experiment skinlesion", "tiny")
    assert run["status"] == ["RUNNING", "FINISHED"]
    assert run["params"]["arch"] == "tiny"
    assert run["params"]["learning_rate"] == 6e-4
    history = pd.read_csv(workspace.history("tiny"))
    losses = [(value, step) for key, value, step in run["metrics"] if key == "val_loss"]
    assert losses == [(pytest.approx(history["val_loss"][0]), 1), (pytest.approx(history["val_loss"][1]), 2)]
    assert any("run0" in note for note in said.notes)


def test_mlflow_uses_the_server_and_experiment_of_the_environment(config, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lesions")
    mlflow.experiments["lesions"] = "7"
    train.run(config.replace(logs=("mlflow",), recipe=small_recipe("epochs=1")), SilentReporter())
    assert mlflow.uris == ["http://tracking:5000"]
    assert mlflow.runs["run0"]["experiment"] == "7"


def test_a_resumed_training_continues_its_runs_and_a_fresh_one_starts_others(
    config,
    mlflow,
    wandb,
    monkeypatch,
):
    logged = config.replace(logs=("mlflow", "wandb"))
    interrupt_second_epoch(logged, monkeypatch)
    assert mlflow.runs["run0"]["status"] == ["RUNNING", "KILLED"]
    assert wandb.finished == [1]
    stored = json.loads(Workspace(config.workspace).tracking_runs("tiny").read_text())
    assert stored == {"mlflow": "run0", "wandb": "run1"}
    # The second epoch was complete: resumed, the training only has to end.
    train.run(logged, SilentReporter())
    assert mlflow.runs["run0"]["status"] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert [(start["id"], start["resume"]) for start in wandb.started] == [(None, None), ("run1", "allow")]
    train.run(logged.replace(fresh=True), SilentReporter())
    assert list(mlflow.runs) == ["run0", "run1"]
    assert wandb.started[2]["id"] is None


def test_a_training_that_was_cut_in_its_first_epoch_continues_its_run(config, mlflow, monkeypatch):
    logged = config.replace(logs=("mlflow",), recipe=small_recipe("epochs=1"))
    save = fitting._save

    def save_and_fail(job, trainer):
        save(job, trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_INTERVAL_S", 0.0)
        patch.setattr(fitting, "_save", save_and_fail)
        with pytest.raises(KeyboardInterrupt):
            train.run(logged, SilentReporter())
    train.run(logged, SilentReporter())
    assert list(mlflow.runs) == ["run0"]
    assert mlflow.runs["run0"]["status"] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]


def test_wandb_records_settings_and_every_epoch_and_nothing_of_the_machine(config, wandb):
    train.run(config.replace(logs=("wandb",)), SilentReporter())
    (start,) = wandb.started
    assert (start["project"], start["name"], start["config"]["arch"]) == ("skinlesion", "tiny", "tiny")
    # The mode is left to WANDB_MODE.
    assert "mode" not in start
    assert start["dir"] == str(Workspace(config.workspace).model("tiny"))
    assert start["settings"] == {
        "console": "off",
        "silent": True,
        "save_code": False,
        "disable_git": True,
    }
    history = pd.read_csv(Workspace(config.workspace).history("tiny"))
    assert [step for step, _ in wandb.logged] == [1, 2]
    assert [figures["val_bacc"] for _, figures in wandb.logged] == pytest.approx(history["val_bacc"].tolist())
    assert all("epoch" not in figures for _, figures in wandb.logged)
    assert wandb.finished == [0]


def test_a_client_that_fails_before_the_training_ends_it_and_later_does_not(config, mlflow):
    logged = config.replace(logs=("mlflow",))
    mlflow.fails = {"create_run"}
    with pytest.raises(SkinLesionError, match="refused by the server") as refused:
        train.run(logged, SilentReporter())
    assert refused.value.exit_code == 1
    mlflow.fails = {"log_metric"}
    said = Said()
    train.run(logged, said)
    assert [note for note in said.notes if "not recorded" in note] == [
        "mlflow: epoch 1 was not recorded: gone",
        "mlflow: epoch 2 was not recorded: gone",
    ]
    assert Workspace(config.workspace).checkpoint("tiny").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_ends_the_command_before_anything_is_read(config, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    # There is no dataset in this workspace, which is noticed later.
    elsewhere = config.replace(logs=(name,), workspace=config.workspace / "none")
    with pytest.raises(UsageError) as refused:
        train.run(elsewhere, SilentReporter())
    assert refused.value.exit_code == 2
    assert refused.value.hint == f"pip install 'skinlesion[{name}]'"


def test_an_unknown_client_is_refused(config):
    with pytest.raises(UsageError, match="did you mean 'mlflow'"):
        train.run(config.replace(logs=("mlfow",)), SilentReporter())
