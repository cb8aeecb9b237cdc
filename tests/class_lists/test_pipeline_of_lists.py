"""Two, eight and twelve classes, through every stage."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.class_list import StoredClassList, class_list_of
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.network import restore_network
from tests.class_lists.conftest import Made
from tests.support.command_line import run

EXPECTED = {
    "melanoma": (("MEL", "OTHER"), ("MEL",), [8, 8]),
    "isic2019": (
        ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"),
        ("MEL", "BCC", "AK", "SCC"),
        [8] * 8,
    ),
    "clinic": (
        ("C00", "C01", "C02", "C03", "C04", "C05", "C06", "C07", "C08", "C09", "C10", "C11"),
        ("C01", "C07", "C11"),
        [8] * 12,
    ),
}


def test_the_list_is_stored_with_the_dataset_and_its_labels_are_read_by_it(made: Made) -> None:
    codes, malignant, counts = EXPECTED[made.classes.name]
    manifest = Manifest.load(made.workspace.manifest)
    assert (manifest.classes.codes, manifest.classes.malignant_codes) == (codes, malignant)
    assert manifest.classes == StoredClassList.load(made.workspace.classes).classes == made.classes
    assert manifest.class_counts == dict(zip(codes, counts, strict=True))


def test_every_artifact_states_the_list(made: Made) -> None:
    codes = list(EXPECTED[made.classes.name][0])
    found = [path for path in made.workspace.root.rglob("*.json") if "tracking" not in path.name]
    assert len(found) >= 8
    for path in found:
        envelope = json.loads(path.read_text())
        assert (path.name, envelope["class_order"]) == (path.name, codes)
        assert [each["code"] for each in envelope["classes"]["classes"]] == codes
    split = Split.load(made.workspace.split, Manifest.load(made.workspace.manifest))
    assert split.artifact is not None
    assert split.artifact.classes == made.classes
    assert class_list_of(made.workspace) == made.classes


def test_network_history_and_predictions_have_the_classes_of_the_list(made: Made) -> None:
    codes, malignant, _ = EXPECTED[made.classes.name]
    checkpoint = Checkpoint.load(made.workspace.checkpoint("tiny"))
    assert checkpoint.classes == made.classes
    assert restore_network(checkpoint).classifier.weight.shape[0] == len(codes)
    columns = pd.read_csv(made.workspace.history("tiny")).columns.tolist()
    assert columns[5:] == [f"sensitivity_{code}" for code in malignant]
    ensemble = Ensemble.load(made.workspace.ensemble)
    assert ensemble.classes == made.classes
    stored = Predictions.load(made.workspace.ensemble_predictions("val"))
    assert stored.view_probabilities.shape[1:] == (8, len(codes))
    np.testing.assert_allclose(stored.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert stored.artifact is not None
    table = pd.read_csv(stored.artifact.payloads["table"])
    assert table.columns.tolist() == ["id", "lesion_id", "label", "fold", *(f"p_{code}" for code in codes)]
    assert set(stored.labels.tolist()) <= set(range(len(codes)))


@pytest.fixture(scope="session")
def predicted(made: Made) -> pd.DataFrame:
    """Calibrated, evaluated on the test images, and predicted with a page; the table of predictions."""
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages.calibrate import stage as calibrate
    from skinlesion_cli.stages.evaluate import stage as evaluate
    from skinlesion_cli.stages.evaluate.settings import EvaluateSettings
    from skinlesion_cli.stages.predict import stage as predict
    from skinlesion_cli.stages.predict.settings import PredictSettings

    root, reporter = made.workspace.root, SilentReporter()
    calibrate.run(calibrate.CalibrateSettings(workspace=root, fit=load_policy(None)), reporter)
    evaluate.run(EvaluateSettings(workspace=root, part="test", output=root / "evaluation"), reporter)
    predict.run(
        PredictSettings(
            workspace=root,
            inputs=(str(made.images),),
            output=root / "results.csv",
            report=True,
            device="cpu",
            runtime="torch",
        ),
        reporter,
    )
    return pd.read_csv(root / "results.csv", keep_default_na=False)


def test_calibration_decisions_and_pages_name_the_classes_of_the_list(
    made: Made, predicted: pd.DataFrame
) -> None:
    codes, malignant, _ = EXPECTED[made.classes.name]
    calibration = Calibration.load(made.workspace.calibration)
    assert calibration.classes == made.classes
    columns = [f"p_{code}" for code in codes]
    assert [name for name in predicted.columns if name.startswith("p_")] == columns
    assert (predicted["status"] == "ok").all()
    values = predicted[columns].astype(float)
    np.testing.assert_allclose(values.sum(axis=1), 1.0, atol=1e-4)
    of_malignant = values[[f"p_{code}" for code in malignant]].sum(axis=1).clip(upper=1.0)
    np.testing.assert_allclose(predicted["malignant_probability"].astype(float), of_malignant, atol=1e-5)
    assert set(predicted["decision"]) <= set(codes)
    assert set(predicted["triage"]) <= {"refer", "review", "routine"}
    page = (made.workspace.root / "results-report.html").read_text()
    assert all(code in page for code in set(predicted["decision"]))
    assert Bundle.load(made.workspace).classes == made.classes


def test_a_list_without_malignant_classes_is_predicted_without_triage(benign: Made) -> None:
    root, output = benign.workspace.root, benign.workspace.root / "results.csv"
    done = run("calibrate", "-w", root, "--policy", "none", "--quiet")
    assert done.exit_code == 0, done.output
    options = ("-w", root, "-o", output, "--report", "--runtime", "torch", "--device", "cpu")
    done = run("predict", benign.images, *options)
    assert done.exit_code == 0, done.output
    assert "no triage: no class of" in done.stdout
    table = pd.read_csv(output, keep_default_na=False)
    assert len(table) == 24
    assert [name for name in table.columns if name.startswith("p_")] == ["p_NEV", "p_SEB", "p_FIB"]
    assert set(table["decision"]) <= {"NEV", "SEB", "FIB"}
    assert set(table["triage"]) == set(table["malignant_probability"]) == {""}
    page = (root / "results-report.html").read_text()
    assert page.count("data-level=") == 3
    assert 'data-level="predicted"' in page
    assert not any(word in page for word in ('class="policy"', "worst first</option>", 'data-level="refer"'))
    done = run("predict", benign.images, *options, "--overwrite", "--group", "folder")
    assert done.exit_code == 0, done.output
    assert "the class is decided on that mean." in done.stdout
    assert not any(word in done.stdout for word in ("worst of any photograph", "alarms", "routine"))


def test_figures_are_those_of_the_list(made: Made, predicted: pd.DataFrame) -> None:
    codes = EXPECTED[made.classes.name][0]
    stored = json.loads((made.workspace.root / "evaluation" / "evaluation.json").read_text())
    assert stored["class_order"] == list(codes)
    assert not (made.workspace.root / "evaluation" / "challenge.csv").exists()


def test_a_pack_holds_the_list(made: Made, predicted: pd.DataFrame, tmp_path) -> None:
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages import pack

    pack.run(pack.PackSettings(workspace=made.workspace.root, output=tmp_path / "packed"), SilentReporter())
    packed = Workspace(tmp_path / "packed")
    assert not packed.classes.exists()
    assert class_list_of(packed) == Bundle.load(packed).classes == made.classes


@pytest.mark.parametrize(
    "wrong",
    [{"targets": ("MELA:sensitivity=0.9",)}, {"costs": ("MELA=3",), "overrides": {"policy": "cost"}}],
    ids=("target", "cost"),
)
def test_a_class_that_the_list_lacks_is_refused_with_those_that_it_has(made: Made, wrong: dict) -> None:
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages.calibrate import stage as calibrate

    settings = calibrate.CalibrateSettings(workspace=made.workspace.root, fit=load_policy(None, **wrong))
    with pytest.raises(UsageError) as refused:
        calibrate.run(settings, SilentReporter())
    told = f"{refused.value.message} {refused.value.hint}"
    assert "MELA" in told
    assert all(code in told for code in EXPECTED[made.classes.name][1][:3])


def test_maps_are_of_the_classes_of_the_model(made: Made, predicted: pd.DataFrame) -> None:
    from skinlesion_cli.stages.explain.stage import ExplainSettings

    codes = EXPECTED[made.classes.name][0]
    settings = ExplainSettings(workspace=made.workspace.root, inputs=("x.jpg",), output=made.workspace.root)
    assert settings.class_indexes(made.classes) is None
    everything = settings.model_copy(update={"classes": ("all",)})
    assert everything.class_indexes(made.classes) == list(range(len(codes)))
    last = settings.model_copy(update={"classes": (codes[-1],)})
    assert last.class_indexes(made.classes) == [len(codes) - 1]
    with pytest.raises(UsageError, match=codes[-1]):
        settings.model_copy(update={"classes": ("MELA",)}).class_indexes(made.classes)


def test_completion_follows_the_workspace(made: Made) -> None:
    from types import SimpleNamespace

    from skinlesion_cli.cli import choices

    codes = EXPECTED[made.classes.name][0]
    context = SimpleNamespace(params={"workspace": made.workspace.root})
    assert choices.classes(context, "") == list(codes)
    assert choices.classes_or_all(context, "a") == ["all"]
    assert choices.targets(context, codes[0]) == [f"{codes[0]}:sensitivity="]
    of_bundled = SimpleNamespace(params={"model": "builtin"})
    assert choices.classes(of_bundled, "A") == ["AKIEC"]
