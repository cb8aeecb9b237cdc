"""The other programs in examples/, each run as its first lines say, on generated images."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest

# Each starts the command many times, and every start loads torch.
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "SKINLESION_RECIPE_EPOCHS": "1",
    "SKINLESION_RECIPE_BATCH_SIZE": "16",
    "SKINLESION_RECIPE_INPUT_SIZE_PX": "32",
    "SKINLESION_RECIPE_CACHE_SIZE_PX": "32",
}
# `fast` begins with smaller images.
FAST = SMALL | {"SKINLESION_RECIPE_PROGRESSIVE_SIZES_PX": "[]", "SKINLESION_RECIPE_HARMONISE_PX": "null"}


def test_each_has_a_line_in_the_readme_and_can_be_started():
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    folder = ROOT / "examples"
    programs = [path for path in folder.iterdir() if path.suffix in (".py", ".sh", ".sbatch")]
    assert len(programs) > 10
    unnamed = [p.name for p in programs if f"| `{p.name}` |" not in text]
    assert unnamed == []
    assert [p.name for p in programs if p.suffix == ".sh" and not os.access(p, os.X_OK)] == []


def test_slurm_tasks_and_merge_write_the_bytes_of_one_run(program, skinlesion, pictures, model, tmp_path):
    (pictures / "broken.jpg").write_text("<html>")
    try:
        whole = skinlesion("predict", pictures, "-w", model, "-o", tmp_path / "whole.csv")
        assert whole.returncode == 3, whole.stderr
        for task in (1, 2):
            done = program(
                *("slurm_array.sbatch", "predict", "results.csv", pictures, "--workspace", model),
                cwd=tmp_path,
                SLURM_ARRAY_TASK_ID=str(task),
                SLURM_ARRAY_TASK_COUNT="2",
            )
            # An image that cannot be read must not keep the merge from starting.
            assert done.returncode == 0, done.stderr
    finally:
        (pictures / "broken.jpg").unlink()
    merged = program("slurm_array.sbatch", "merge", "results.csv", cwd=tmp_path)
    assert merged.returncode == 3, merged.stderr
    assert (tmp_path / "results.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len((tmp_path / "whole.csv").read_text().splitlines()) == 10
    assert program("slurm_array.sbatch", "join", "results.csv", cwd=tmp_path).returncode == 2


def test_a_dask_cluster_writes_the_bytes_of_one_process(program, pictures, model, tmp_path):
    pytest.importorskip("distributed", reason="dask is not installed")
    done = program("dask_cluster.py", pictures, "--workspace", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 rows: 2 dask workers and one process wrote the same bytes" in done.stdout


def test_python_api(program, pictures, model, tmp_path):
    from skinlesion_cli import Classifier

    first, second = sorted(pictures.rglob("*.jpg"))[:2]
    (tmp_path / "empty.jpg").touch()
    done = program("python_api.py", model, first, second, "empty.jpg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [(p.decision, p.triage) for p in Classifier.load(model).predict([first, second])]
    lines = done.stdout.splitlines()
    found = [re.search(r"\.jpg: (\w+), (\w+) \(\w+ \d\.\d\d", line) for line in lines[:2]]
    assert [match and match.groups() for match in found] == expected
    assert lines[2] == "empty.jpg: not read (empty: the file is empty)"
    assert lines[3] == f"as bytes and as an array: {expected[0][0]}, {expected[0][0]}"


def test_own_folder(program, tmp_path):
    import make_images

    rows = make_images.make(tmp_path / "drawn", 77, seed=5, width=64, height=48, official=False)
    for number, row in enumerate(rows):
        image = tmp_path / "drawn" / f"{row['image']}.jpg"
        target = tmp_path / ("new" if number >= 70 else f"labelled/{row['label']}") / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        image.rename(target)
    (tmp_path / "new" / "last.jpg").touch()
    arguments = ("own_folder.sh", "labelled", "new", "--workers", "0", "--device", "cpu")
    done = program(*arguments, cwd=tmp_path, ARCH="tiny", WEIGHTS="none", **FAST)
    assert done.returncode == 3, done.stderr
    workspace = tmp_path / "skinlesion-workspace"
    ensemble = json.loads((workspace / "ensemble/ensemble.json").read_text())
    assert [m["name"] for m in ensemble["body"]["members"]] == ["efficientnet_lite0", "tiny"]
    checkpoint = json.loads((workspace / "models/efficientnet_lite0/checkpoint.json").read_text())
    assert "model builtin:" in json.dumps(checkpoint["body"])
    assert list(workspace.rglob("report.html"))
    with (tmp_path / "results/predictions.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["status"] for row in found] == ["ok"] * 7 + ["error"]
    # 42 training images are too few for the gate, and that is said.
    assert "continuing without a check of image quality" in done.stderr
    assert {row["quality"] for row in found} == {""}
    assert len(list((tmp_path / "results/predictions-cam").rglob("*.png"))) == 7
    named = re.search(r"open (\S+) in a browser", done.stdout)
    assert named
    assert (tmp_path / named[1]).is_file()


def test_the_bundled_model_is_made_from_two_folders_and_what_is_done_is_not_done_again(
    program, skinlesion, tmp_path
):
    import make_images

    for number, name in enumerate(("one", "two")):
        make_images.make(tmp_path / name, 70, seed=number, width=64, height=48, official=True)
    for path in [*(tmp_path / "two").rglob("*.csv"), *(tmp_path / "two").rglob("GEN_*.jpg")]:
        if path.suffix == ".csv":
            path.write_text(path.read_text().replace("GEN_", "OWN_"))
        else:
            path.rename(path.with_name(path.name.replace("GEN_", "OWN_")))
    arguments = ("bundled_model/train.sh", "one", "two", "packed", "--weights", "none")
    arguments += ("--device", "cpu", "--workers", "0")
    variables = {"ARCHS": "tiny", "FOLDS": "2"} | FAST
    first = program(*arguments, "--fold", "1", cwd=tmp_path, **variables)
    assert first.returncode == 0, first.stderr
    assert not (tmp_path / "packed").exists()
    second = program(*arguments, cwd=tmp_path, **variables, JOBS="2")
    assert second.returncode == 0, second.stderr
    # Fold 1 was trained by the first run; the folds side by side and the run that joins them train no other.
    assert second.stderr.count("train: epoch 1/1") == 1
    ensemble = json.loads((tmp_path / "packed/ensemble/ensemble.json").read_text())
    assert [m["name"] for m in ensemble["body"]["members"]] == ["tiny-fold0", "tiny-fold1"]
    table = next((tmp_path / "packed/ensemble").glob("predictions-val.table-*.csv")).read_text()
    assert (table.count("GEN_0"), table.count("OWN_0")) == (70, 70)
    # Another workspace gets the folds of this model, which are not those of its own seed.
    other = tmp_path / "other"
    own = ("--split", "kfold", "--folds", "2", "--seed", "9", "-w", other)
    assert skinlesion("download", "--from", tmp_path / "one", *own).returncode == 0

    def folds(text):
        rows = {row["id"]: row["fold"] for row in csv.DictReader(text.splitlines())}
        return {identity: fold for identity, fold in rows.items() if identity.startswith("GEN_")}

    def folds_of_workspace():
        return folds((other / "dataset" / split_table(other)).read_text())

    assert folds_of_workspace() != folds(table)
    given = program("bundled_model/same_folds.py", "packed", "--workspace", "other", cwd=tmp_path)
    assert given.returncode == 0, given.stderr
    assert folds_of_workspace() == folds(table)
    assert skinlesion("info", "-w", other).returncode == 0


def split_table(workspace):
    """Name of the table that the split of the workspace states."""
    return json.loads((workspace / "dataset/split.json").read_text())["payloads"]["table"]["file"]


def test_shrunk_images_keep_names_labels_and_aspect_ratio(program, tmp_path):
    import make_images
    from PIL import Image

    make_images.make(tmp_path / "one", 7, seed=1, width=64, height=48, official=True)
    for _ in range(2):
        done = program("bundled_model/shrink_images.py", "one", "small", "--side-px", "24", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("7 images, ")
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert {
        p.relative_to(tmp_path / "small") for p in (tmp_path / "small").rglob("*") if p.is_file()
    } == files
    for path in (tmp_path / "small").rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.size == (32, 24)


def test_reproduction_of_the_published_recipe_shows_its_commands(program, tmp_path):
    done = program("reproduce_published.sh", "show", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("skinlesion ") for line in lines)
    trained = [re.search(r"--arch (\w+) --recipe published --seed (\d+)", line) for line in lines]
    assert [match.groups() for match in trained if match] == [
        (arch, seed) for seed in ("42", "7", "123") for arch in ("resnet50", "densenet121", "efficientnet_b3")
    ]
    splits = [line for line in lines if " download " in line]
    assert [re.search(r"--split published --seed (\d+)", line)[1] for line in splits] == ["42", "7", "123"]
    assert sum("calibrate --policy published" in line for line in lines) == 3
    assert list(tmp_path.iterdir()) == []
    assert program("reproduce_published.sh", "plan", cwd=tmp_path).returncode == 2


def test_reproduction_of_the_published_recipe_runs(program, generated, tmp_path):
    settings = {"ARCHS": "tiny", "SEEDS": "7", "OPTIONS": "--weights none --workers 0 --device cpu"} | SMALL
    planned = program("reproduce_published.sh", "plan", generated, cwd=tmp_path, **settings)
    assert planned.returncode == 0, planned.stderr
    assert re.fullmatch(
        r"(.*\n)*seed 7, tiny: \d+ s\nall trainings: about \d+\.\d h on this machine\n", planned.stdout
    ), planned.stdout
    assert not (tmp_path / "published/seed-7/models").exists()
    done = program("reproduce_published.sh", "run", generated, cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    published = tmp_path / "published"
    calibration = json.loads((published / "seed-7/calibration/calibration.json").read_text())
    assert (calibration["body"]["policy"], calibration["body"]["tta_mode"]) == ("published", "published")
    # 15 images a class: int(9) to training, int(3) to validation, 3 to the test.
    for name, decision in (("argmax-7", "argmax"), ("thresholds-7", "calibrated (published)")):
        body = json.loads((published / name / "evaluation.json").read_text())["body"]
        assert (body["support"]["images"], body["decision"]) == (21, decision)
