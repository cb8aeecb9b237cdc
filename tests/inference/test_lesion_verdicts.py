"""Several photographs of one lesion: one verdict each, by hand and at the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.inference.lesion_verdict import LesionTally, LesionVerdict
from skinlesion_cli.inference.prediction import Prediction
from skinlesion_cli.stages.predict.groups import ByFolder, ByTable, lesions_of
from tests.support import tiny_models
from tests.support.class_lists import ISIC2018
from tests.support.command_line import run

pytestmark = pytest.mark.command_line


def photograph(identity: str, lesion: str | None, triage: str, p_mel: float, **changes) -> Prediction:
    probabilities = dict.fromkeys(ISIC2018.codes, 0.0) | {"MEL": p_mel, "NV": 1.0 - p_mel}
    values = {
        "probabilities": probabilities,
        "malignant_probability": p_mel,
        "triage": triage,
        "lesion": lesion,
    }
    return Prediction(id=identity, **(values | {"triage_reason": f"because of {p_mel}"} | changes))


def verdicts(*photographs: Prediction, rule: DecisionRule | None = None) -> dict[str, LesionVerdict]:
    tally = LesionTally(ISIC2018, rule or DecisionRule(ISIC2018))
    for each in photographs:
        tally.add(each)
    return {verdict.lesion: verdict for verdict in tally.verdicts()}


def test_mean_of_probabilities_and_worst_of_levels_and_alarms() -> None:
    found = verdicts(
        photograph("a1", "A", "routine", 0.1),
        photograph("a2", "A", "review", 0.3, alarm=("MEL",), flagged=True),
        photograph("a3", "A", "review", 0.2, alarm=("malignant",)),
        photograph("b1", "B", "refer", 0.9),
    )["A"]
    assert (found.images, found.failed, found.flagged) == (3, 0, 1)
    assert found.probabilities is not None
    assert found.probabilities["MEL"] == pytest.approx(0.2)
    assert found.malignant_probability == pytest.approx(0.2)
    assert (found.decision, found.triage, found.alarm) == ("NV", "review", ("MEL", "malignant"))
    assert found.triage_reason == "a2: because of 0.3"


def test_the_class_is_decided_on_the_mean_by_the_rule_of_the_calibration() -> None:
    both = (photograph("a1", "A", "routine", 0.1), photograph("a2", "A", "routine", 0.5))
    assert verdicts(*both)["A"].decision == "NV"
    # The mean is 0.3.
    for threshold, decision in ((0.29, "MEL"), (0.31, "NV")):
        rule = DecisionRule(ISIC2018, thresholds={"MEL": threshold}, priority=("MEL",))
        assert verdicts(*both, rule=rule)["A"].decision == decision


def test_a_photograph_that_cannot_be_read_keeps_its_lesion_from_routine() -> None:
    unread = Prediction(id="a2", status="error", error="truncated: x", lesion="A")
    found = verdicts(photograph("a1", "A", "routine", 0.01), unread)["A"]
    assert (found.triage, found.images, found.failed) == ("review", 1, 1)
    assert found.triage_reason == "1 of 2 photographs could not be read"
    alone = verdicts(unread)["A"]
    assert (alone.triage, alone.probabilities, alone.decision) == (None, None, None)
    assert alone.to_row(ISIC2018)["p_MEL"] is None


def test_photographs_without_a_lesion_stay_alone() -> None:
    found = verdicts(photograph("x", None, "routine", 0.1), photograph("y", None, "refer", 0.9))
    assert [(name, each.images) for name, each in found.items()] == [("x", 1), ("y", 1)]


def test_by_folder() -> None:
    grouping = ByFolder()
    assert [grouping.lesion(each) for each in ("p1/l2/a.jpg", "b.jpg")] == ["p1/l2", ""]


def table(folder: Path, text: str) -> ByTable:
    path = folder / "lesions.csv"
    path.write_text(text)
    return ByTable(path)


def test_a_table_names_images_by_path_name_or_stem(tmp_path: Path) -> None:
    grouping = table(tmp_path, "image;lesion_id\nsub/a.jpg;A\nb.jpg;B\nc;C\nd.jpg;\n")
    wanted = {"sub/a.jpg": "A", "other/a.jpg": "", "x/b.jpg": "B", "x/c.png": "C", "d.jpg": ""}
    assert {image: grouping.lesion(image) for image in wanted} == wanted


def test_a_table_names_all_frames_of_a_file_together_or_one_by_one(tmp_path: Path) -> None:
    grouping = table(tmp_path, "image,lesion_id\npages.tif,A\nscan,B\nx.dcm#2,C\nIMG #2 left.jpg,D\n")
    wanted = {"s/pages.tif#1": "A", "s/pages.tif#2": "A", "scan.dcm#1": "B", "scan.dcm#12": "B"}
    wanted |= {"x.dcm#1": "", "x.dcm#2": "C", "visit/IMG #2 left.jpg": "D"}
    assert {image: grouping.lesion(image) for image in wanted} == wanted
    with pytest.raises(UsageError, match=r"s/pages\.tif and t/pages\.tif"):
        grouping.lesion("t/pages.tif#1")


def test_a_name_that_means_two_images_is_refused(tmp_path: Path) -> None:
    grouping = table(tmp_path, "image,lesion_id\na.jpg,A\n")
    assert grouping.lesion("one/a.jpg") == "A"
    assert grouping.lesion("one/a.jpg") == "A"
    with pytest.raises(UsageError, match=r"one/a\.jpg and two/a\.jpg"):
        grouping.lesion("two/a.jpg")


def test_tables_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"several lesions: a\.jpg"):
        table(tmp_path, "image,lesion_id\na.jpg,A\na.jpg,B\n")
    with pytest.raises(DataError, match="no column of lesions"):
        table(tmp_path, "image,colour\na.jpg,red\n")
    with pytest.raises(UsageError, match="is not a file"):
        lesions_of(str(tmp_path / "nowhere.csv"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_grouped_at_the_command_line(tiny_model: Path, tmp_path: Path) -> None:
    images = tiny_models.make_images(tmp_path / "in", 5)
    (images / "a" / "broken.jpg").write_bytes(b"no image")
    options = ("-w", tiny_model, "-o", tmp_path / "out.csv", "--group", "folder")
    done = run("predict", images, *options, "--report")
    assert done.exit_code == 3, done.output
    assert "2 lesions" in done.stdout
    table = {row["lesion"]: row for row in rows(tmp_path / "out-lesions.csv")}
    assert {name: (row["images"], row["failed"]) for name, row in table.items()} == {
        "a": ("3", "1"),
        "b": ("2", "0"),
    }
    singly = rows(tmp_path / "out.csv")
    assert {row["lesion"] for row in singly} == {"a", "b"}
    of_b = [float(row["p_MEL"]) for row in singly if row["lesion"] == "b"]
    assert float(table["b"]["p_MEL"]) == pytest.approx(sum(of_b) / 2, abs=1e-6)
    order = ["refer", "review", "routine"]
    levels = [row["triage"] for row in singly if row["lesion"] == "b"]
    assert table["b"]["triage"] == min(levels, key=order.index)
    page = (tmp_path / "out-report.html").read_text("utf-8")
    assert "does not carry over to lesions" in page
    (tmp_path / "out-lesions.csv").write_text("mine\n1\n")
    assert run("predict", images, *options, "--overwrite").exit_code == 2


def test_a_lesion_with_a_line_break_in_its_name_stays_on_one_line(tiny_model: Path, tmp_path: Path) -> None:
    images = tiny_models.make_images(tmp_path / "in", 2)
    (tmp_path / "lesions.csv").write_text('image,lesion_id\nimage 000.jpg,"L\n1"\nimage 001.jpg,"L\n1"\n')
    options = ("-w", tiny_model, "-o", tmp_path / "out.csv", "--group", tmp_path / "lesions.csv")
    done = run("predict", images, *options)
    assert done.exit_code == 0, done.output
    assert [row["lesion"] for row in rows(tmp_path / "out.csv")] == ["L\\x0a1"] * 2
    (lesion,) = rows(tmp_path / "out-lesions.csv")
    assert (lesion["lesion"], lesion["images"]) == ("L\\x0a1", "2")


def test_what_grouping_cannot_go_with(tiny_model: Path, tmp_path: Path) -> None:
    images = tiny_models.make_images(tmp_path / "in", 2)
    options = ("predict", images, "-w", tiny_model, "-o", "-", "--group", "folder")
    assert run(*options).exit_code == 2
    done = run(*options[:4], "-o", tmp_path / "x.csv", "--group", tmp_path / "none.csv")
    assert done.exit_code == 2
    assert "none.csv" in done.stderr
