"""Age, sex and body site at prediction: from a table, from DICOM files, and in the Python interface."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.bundle import Bundle, bundled_model, copy_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.metadata import PatientMetadata, encode
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import ArtifactError, DataError, UsageError
from skinlesion_cli.inference.exporting import graph_of
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.inference.runtimes.exported import exported_runtime
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import at_home
from skinlesion_cli.stages.predict import watch
from skinlesion_cli.stages.predict.groups import ByFolder, Lesions
from skinlesion_cli.stages.predict.patients import Patients
from skinlesion_cli.stages.predict.settings import PredictSettings
from tests.support import tiny_models
from tests.support.class_lists import ISIC2018
from tests.support.command_line import assert_refused, probabilities, rows_of, run

FIELDS = ("age", "sex", "site")
OLD_WOMAN = PatientMetadata(age_years=81.0, sex="female", site="face")
YOUNG_MAN = PatientMetadata(age_years=19.0, sex="male")
PIXELS = np.random.default_rng(4).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of a network with the branch and one without."""
    return tiny_models.make_workspace(tmp_path_factory.mktemp("branch") / "ws", metadata_fields=FIELDS)


@pytest.fixture(scope="module")
def predictor(workspace: Path) -> Predictor:
    return Predictor.of_bundle(Bundle.load(Workspace(workspace)), runtime="torch")


def with_branch(workspace: Path) -> Checkpoint:
    return Checkpoint.load(Workspace(workspace).checkpoint("tiny-fold0"))


def scan(folder: Path, name: str, seed: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(path)
    return path


def found(table: str, folder: Path, *ids: str, group: bool = False) -> list[PatientMetadata | None]:
    path = folder / "patients.csv"
    path.write_text(table, encoding="utf-8")
    patients = Patients(path, Lesions(ByFolder()) if group else None)
    return [patients.informed(ImageInput(each, scan(folder, "x.png", 0))).patient for each in ids]


@pytest.mark.parametrize(
    ("cells", "expected", "words"),
    [
        (("45", "male", "back"), PatientMetadata(45.0, "male", "back"), ()),
        (("45,5", " F ", "Lower Extremity"), PatientMetadata(45.5, "female", "lower extremity"), ()),
        (("006M", "O", "Skin of forearm"), PatientMetadata(0.5, None, "upper extremity"), ()),
        (("", "unknown", "n/a"), PatientMetadata(), ()),
        # A site that lies in two of the known ones is not guessed at.
        (("old", "x", "head/neck"), PatientMetadata(), ("age 'old'", "sex 'x'", "site 'head/neck'")),
        (("-1", "male", ""), PatientMetadata(None, "male"), ("age '-1'",)),
        (("nan", "male", ""), PatientMetadata(None, "male"), ()),
        (("inf", "", ""), PatientMetadata(), ("age 'inf'",)),
    ],
)
def test_cells_are_understood_or_named(
    cells: tuple[str, str, str], expected: PatientMetadata, words: tuple[str, ...]
) -> None:
    assert PatientMetadata.of_texts(*cells) == (expected, words)


@pytest.mark.parametrize("values", [{"age_years": 140.0}, {"sex": "F"}, {"site": "elbow"}])
def test_a_value_outside_of_the_vocabulary_is_no_metadata(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PatientMetadata(**values)


def test_rows_are_found_by_image_lesion_folder_and_patient(tmp_path: Path) -> None:
    table = "image;lesion_id;patient_id;sex\n;L7;;male\na/1.png;;;female\n2;;;male\n;;P3;female\n"
    ids = ("a/1.png", "b/2.png", "L7/x/5.png", "P3/b.png", "c/1.png")
    assert [each and each.sex for each in found(table, tmp_path, *ids)] == [
        "female",
        "male",
        "male",
        "female",
        None,
    ]
    assert found("lesion_id,age\na/b,50\n", tmp_path, "a/b/1.png", group=True) == [PatientMetadata(50.0)]
    assert found("image,age\nscan.dcm,50\n", tmp_path, "scan.dcm#2") == [PatientMetadata(50.0)]
    assert found("image,age\nIMG #2 a.jpg,50\n", tmp_path, "v/IMG #2 a.jpg") == [PatientMetadata(50.0)]


def test_tables_that_say_two_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"different things of 1\.png"):
        found("image,age\n1.png,50\n1.png,51\n", tmp_path)
    with pytest.raises(UsageError, match=r"1\.png in patients\.csv means two images: a/1\.png and b/1\.png"):
        found("image,age\n1.png,50\n", tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(DataError, match="no column of images"):
        found("age,sex\n50,male\n", tmp_path)
    with pytest.raises(DataError, match="says nothing of patients"):
        found("image,label\n1.png,NV\n", tmp_path)


def test_what_is_known_changes_the_prediction_and_the_calibration(predictor: Predictor) -> None:
    alone, informed, empty = (
        predictor.predict([PIXELS[0]], [patient])[0] for patient in (None, OLD_WOMAN, PatientMetadata())
    )
    assert (alone.patient_data, informed.patient_data, empty.patient_data) == ((), FIELDS, ())
    assert alone.probabilities == empty.probabilities != informed.probabilities
    # By hand: the mean of two networks over eight views, one of them with the branch.
    bundle = predictor.bundle
    network = RUNTIMES["torch"].member(bundle.members[0], 1.0, "cpu").runtime
    row = encode([OLD_WOMAN], FIELDS)
    assert not np.allclose(network.logits(PIXELS[:1], row), network.logits(PIXELS[:1]))
    assert np.array_equal(network.logits(PIXELS[:1], 0 * row), network.logits(PIXELS[:1]))
    assert bundle.metadata_calibration is not None
    assert informed.threshold_fired in ("MEL", "AKIEC", None)


def test_the_calibration_for_metadata_decides_where_something_is_known(predictor: Predictor) -> None:
    assert predictor.bundle.metadata_calibration is not None
    # Fires for every image of which something is known, and for no other.
    rule = replace(predictor.bundle.metadata_calibration.rule, thresholds={"DF": 0.0}, priority=("DF",))
    calibration = replace(predictor.bundle.metadata_calibration, rule=rule)
    other = Predictor(
        replace(predictor.bundle, metadata_calibration=calibration),
        predictor.engine,
        informed=predictor.informed,
    )
    rows = other.predict(list(PIXELS), [OLD_WOMAN, None, YOUNG_MAN])
    assert [row.threshold_fired == "DF" for row in rows] == [True, False, True]


def test_a_mixed_batch_gives_each_image_what_it_gets_alone(predictor: Predictor) -> None:
    patients = [None, OLD_WOMAN, None]
    together = predictor.predict(list(PIXELS), patients)
    apart = [predictor.predict([pixels], [p])[0] for pixels, p in zip(PIXELS, patients, strict=True)]
    assert [row.probabilities for row in together] == [row.probabilities for row in apart]
    sources = [ImageInput(str(i), Path(), content=b"", patient=p) for i, p in enumerate(patients)]
    assert pickle.loads(pickle.dumps(sources))[1].patient == OLD_WOMAN  # what other processes get
    with pytest.raises(ValueError, match="shorter"):
        predictor.predict(list(PIXELS), [OLD_WOMAN])


def test_outputs_of_a_mixed_batch_are_in_the_order_of_its_images(predictor: Predictor) -> None:
    from skinlesion_cli.inference.sources import DecodedImage

    patients = [OLD_WOMAN, None, YOUNG_MAN]
    sources = [DecodedImage(str(i), p, m) for i, (p, m) in enumerate(zip(PIXELS, patients, strict=True))]
    batch = predictor.run(sources, keep_layers=True, keep_views=True)
    for index, source in enumerate(sources):
        alone = predictor.run([source], keep_layers=True, keep_views=True)
        assert batch.output is not None
        assert alone.output is not None
        assert np.array_equal(batch.output.probabilities[index], alone.output.probabilities[0])
        assert batch.output.view_probabilities is not None
        assert alone.output.view_probabilities is not None
        assert np.array_equal(
            batch.output.view_probabilities[:, :, index], alone.output.view_probabilities[:, :, 0]
        )
        for ours, theirs in zip(batch.output.layers, alone.output.layers, strict=True):
            assert np.array_equal(ours.features[index], theirs.features[0])
        assert batch.decided is not None
        assert alone.decided is not None
        assert batch.decided[index] == alone.decided[0]


def test_a_model_without_the_second_calibration_uses_the_image_alone(predictor: Predictor) -> None:
    bundle = replace(predictor.bundle, metadata_calibration=None)
    plain = Predictor.of_bundle(bundle, runtime="torch")
    rows = plain.predict([PIXELS[0], PIXELS[0]], [OLD_WOMAN, None])
    assert rows[0].probabilities == rows[1].probabilities
    assert rows[0].patient_data is None


def test_a_graph_takes_the_metadata_as_its_second_input(workspace: Path) -> None:
    pytest.importorskip("onnxscript")
    checkpoint = with_branch(workspace)
    export = graph_of(checkpoint, Workspace(workspace), SilentReporter())
    assert export.figures["largest_difference"] <= 1e-5
    graph = exported_runtime(export.model, "onnx", export.weights)
    network = RUNTIMES["torch"].member(checkpoint, 1.0, "cpu").runtime
    rows = encode([OLD_WOMAN, PatientMetadata(), YOUNG_MAN], FIELDS)
    for known in (rows, None):
        np.testing.assert_allclose(graph.logits(PIXELS, known), network.logits(PIXELS, known), atol=1e-4)
        ours, theirs = graph.outputs(PIXELS, known), network.outputs(PIXELS, known)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_an_export_without_that_input_refuses_metadata(workspace: Path) -> None:
    pytest.importorskip("onnxscript")
    without = Checkpoint.load(Workspace(workspace).checkpoint("tiny-fold1"))
    export = graph_of(without, Workspace(workspace), SilentReporter())
    graph = exported_runtime(export.model, "onnx", export.weights)
    assert [given.name for given in graph.session.get_inputs()] == [exports.INPUT]
    with pytest.raises(ArtifactError, match="without the input for patient metadata"):
        graph.logits(PIXELS, encode([OLD_WOMAN] * 3, FIELDS))
    assert np.array_equal(graph.logits(PIXELS, np.zeros((3, 18), np.float32)), graph.logits(PIXELS))


def test_the_second_calibration_is_packed_and_part_of_the_identity(workspace: Path, tmp_path: Path) -> None:
    source, target = Workspace(workspace), Workspace(tmp_path / "packed")
    bundle = Bundle.load(source)
    copy_model(source, target, bundle)
    packed = Bundle.load(target)
    assert packed.sha256 == bundle.sha256
    assert packed.metadata_calibration is not None
    target.metadata_calibration.unlink()
    assert Bundle.load(target).sha256 != bundle.sha256


@pytest.mark.command_line
def test_a_table_of_patients_at_the_command_line(workspace: Path, tmp_path: Path) -> None:
    for index in range(3):
        scan(tmp_path / "in", f"s{index}.png", index)
    table = tmp_path / "patients.csv"
    table.write_text("image,age,sex,site\ns0.png,81,female,face\ns1,,,elbow\ns9,44,male,back\n")
    out = tmp_path / "out.csv"
    arguments = ("predict", tmp_path / "in", "-w", workspace, "--runtime", "torch", "--output")
    done = run(*arguments, out, "--patients", table)
    assert done.exit_code == 0, done.output
    rows = rows_of(out)
    assert [rows[f"s{i}.png"]["patient_data"] for i in range(3)] == ["age|sex|site", "none", "none"]
    flat = " ".join(done.output.split())
    assert "taken as not known: site 'elbow' (1)" in flat
    # Which rule decided: the levels of both calibrations are stated.
    assert "0.50" in flat.split("instead:")[0]
    assert "1 image with patient metadata, instead:" in flat
    assert "0.20" in flat.split("instead:")[1]
    assert "patients.csv has no row for s2.png" in flat
    assert "for no image that was predicted: s9" in flat
    assert run(*arguments, tmp_path / "plain.csv", "--report").exit_code == 0
    page = (tmp_path / "plain-report.html").read_text("utf-8")
    assert "thresholds with patient metadata" in page
    plain = rows_of(tmp_path / "plain.csv")
    changed = [probabilities(rows[name]) != probabilities(plain[name]) for name in sorted(plain)]
    assert changed == [True, False, False]
    # Interrupted with one table, a run is not finished with another.
    table.write_text("image,age\ns0.png,20\n")
    assert run(*arguments, tmp_path / "third.csv", "--patients", tmp_path / "none.csv").exit_code == 2


@pytest.mark.command_line
def test_the_bundled_model_takes_no_patients(tmp_path: Path) -> None:
    if any(member.recipe.metadata_fields for member in Bundle.load(bundled_model()).members):
        pytest.skip("the bundled model takes patient metadata")
    table = tmp_path / "patients.csv"
    table.write_text("image,age\na.png,20\n")
    done = run("predict", scan(tmp_path, "a.png", 0), "--model", "builtin", "--patients", table)
    assert_refused(done, 2, "take no patient metadata", "--metadata age,sex,site")


def test_dicom_elements_are_used_and_the_table_goes_before_them(predictor: Predictor, tmp_path: Path) -> None:
    dicom_files = pytest.importorskip("tests.support.dicom_files")
    pixels = np.asarray(Image.fromarray(PIXELS[0]).resize((64, 48)))
    content = dicom_files.dicom(
        pixels, PatientAge="081Y", PatientSex="F", BodyPartExamined="FACE", PatientID="P1"
    )
    from_file, alone = predictor.predict([content, pixels])
    by_hand = predictor.predict([pixels], [OLD_WOMAN])[0]
    assert from_file.patient_data == FIELDS
    assert from_file.probabilities == by_hand.probabilities != alone.probabilities
    # What the user says goes before what the file says, field by field.
    mixed = predictor.predict([content], [PatientMetadata(sex="male")])[0]
    expected = predictor.predict([pixels], [replace(OLD_WOMAN, sex="male")])[0]
    assert mixed.probabilities == expected.probabilities
    # Words that are not known are named in the row.
    odd = predictor.predict([dicom_files.dicom(pixels, PatientSex="M", BodyPartExamined="ELBOW")])[0]
    assert odd.patient_data == ("sex",)
    assert odd.notes == ("taken as not known: site 'ELBOW'",)
    # A table by patient finds a DICOM file by its PatientID.
    file = tmp_path / "scan.dcm"
    file.write_bytes(content)
    table = tmp_path / "patients.csv"
    table.write_text("patient_id,age\nP1,33\n")
    assert Patients(table).informed(ImageInput("scan.dcm", file)).patient == PatientMetadata(33.0)


def test_the_region_of_a_dicom_sequence_goes_before_the_body_part() -> None:
    dicom_files = pytest.importorskip("tests.support.dicom_files")
    from pydicom.dataset import Dataset

    from skinlesion_cli.data.reading.images import load_image

    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "14975008", "SCT", "Forearm"
    content = dicom_files.dicom(
        np.full((48, 64, 3), 90, np.uint8), AnatomicRegionSequence=[region], BodyPartExamined="SKIN"
    )
    image = load_image(content)
    assert image.patient == PatientMetadata(site="upper extremity")
    assert image.not_understood == ()


def test_a_stopping_rule_stops_with_metadata_as_it_does_alone(tmp_path: Path) -> None:
    # Every estimate is far enough from every border after the first step.
    rule = StoppingRule(DecisionRule(ISIC2018), margin_factor=0.0, n_views=8, weights=(0.5, 0.5))
    stopping = {"stopping_rule": rule.to_json(), "step_shares": [1.0, *[0.0] * 15]}
    root = tiny_models.make_workspace(tmp_path / "ws", stopping=stopping, metadata_fields=FIELDS)
    adaptive = Predictor.of_bundle(Bundle.load(Workspace(root)), runtime="torch")
    rows = adaptive.predict(list(PIXELS[:2]), [OLD_WOMAN, None])
    assert [row.tta for row in rows] == ["adaptive", "adaptive"]
    assert [row.patient_data for row in rows] == [FIELDS, ()]
    assert all(row.forward_passes is not None and row.forward_passes < 16 for row in rows)
    every = adaptive.stopping_by(None).predict(list(PIXELS[:2]), [OLD_WOMAN, None])
    assert [row.forward_passes for row in every] == [16, 16]
    assert adaptive.predict([PIXELS[0]], [OLD_WOMAN])[0].probabilities == rows[0].probabilities


def test_a_watched_folder_takes_the_table_too(workspace: Path, tmp_path: Path) -> None:
    class Ended(BaseException):
        pass

    def pause(_seconds: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            raise Ended

    looks: list[int] = []
    scan(tmp_path / "in", "s0.png", 0)
    scan(tmp_path / "in", "s1.png", 1)
    table = tmp_path / "patients.csv"
    table.write_text("image,age,site\ns0,81,face\n")
    settings = PredictSettings(
        workspace=workspace,
        inputs=(str(tmp_path / "in"),),
        output=tmp_path / "out.csv",
        runtime="torch",
        patients=table,
    )
    with pytest.raises(Ended):
        watch.run(settings, SilentReporter(), pause=pause)
    rows = rows_of(tmp_path / "out.csv")
    assert [rows[name]["patient_data"] for name in ("s0.png", "s1.png")] == ["age|site", "none"]


def test_calibrating_at_home_fits_both_calibrations(workspace: Path, tmp_path: Path) -> None:
    lines = ["image,label,lesion_id,age,sex,site"]
    for index in range(24):
        scan(tmp_path / "in", f"s{index}.png", index)
        lines.append(f"s{index}.png,{('MEL', 'NV')[index % 2]},L{index},{30 + index},,{'face' * (index % 2)}")
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines) + "\n")
    settings = at_home.RecalibrateSettings(
        model=str(workspace),
        on=tmp_path / "in" / "labels.csv",
        output=tmp_path / "ours",
        fit=FitSettings(policy="none", probability_method="temperature"),
        device="cpu",
    )
    at_home.run(settings, SilentReporter())
    ours = Workspace(tmp_path / "ours")
    bundle = Bundle.load(ours)
    assert bundle.metadata_calibration is not None
    assert bundle.metadata_calibration.policy == "none"
    alone, informed = (Predictions.load(ours.ensemble_predictions(part)) for part in ("val", "val-metadata"))
    assert (alone.view_probabilities != informed.view_probabilities).any(axis=(1, 2)).all()
    # What the second was fitted to is what the model predicts of an image with its age.
    raw = replace(
        bundle, metadata_calibration=replace(bundle.metadata_calibration, rule=DecisionRule(ISIC2018))
    )
    predictor = Predictor.of_bundle(raw, runtime="torch")
    row = predictor.predict([tmp_path / "in" / "s2.png"], [PatientMetadata(age_years=32.0)])[0]
    at = informed.table["id"].tolist().index("s2")
    assert row.probabilities is not None
    np.testing.assert_allclose(list(row.probabilities.values()), informed.probabilities[at], atol=1e-5)
