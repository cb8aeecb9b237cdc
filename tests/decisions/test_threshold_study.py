"""The study cuts by lesion and counts what it says."""

from __future__ import annotations

import numpy as np
import threshold_study as study

from skinlesion_cli.decisions.statistics.lesions import group
from tests.support import synthetic


def test_halves_share_no_lesion_and_split_every_class():
    labels, _, lesion_ids = synthetic.predictions(301, 81)
    lesions = group(lesion_ids, labels)
    of_lesion = labels[lesions.first]
    first = study.cut(lesions, of_lesion, np.random.default_rng(0))
    for label in np.unique(of_lesion):
        mine = of_lesion == label
        assert abs(first[mine].sum() - (~first)[mine].sum()) <= 1
    assert not set(lesion_ids[lesions.take(first)]) & set(lesion_ids[lesions.take(~first)])


def test_one_cut_and_its_table():
    labels, values, lesion_ids = synthetic.predictions(300, 82)
    pool = study.Pool(labels, values, lesion_ids)
    names = list(study.policies())
    found = np.stack([study.one_cut(pool, group(lesion_ids, labels), seed) for seed in range(3)])
    assert found.shape == (3, len(names), 11)
    again = study.one_cut(pool, group(lesion_ids, labels), 1)
    assert np.array_equal(again, found[1], equal_nan=True)
    lines = study.table(found, names)
    assert len(lines) == 2 + 2 * len(names)
    assert len({line.count("|") for line in lines}) == 1
    assert len(study.together(found, names)) == len(names)


def test_what_a_cut_is_judged_by():
    # Melanoma lesions a (two images, both right), b (one, wrong); of two nevi one is called melanoma.
    labels, decided = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    codes = np.array([0, 0, 1, 2, 3])
    found = study.Decided(decided, (0.5,), (True,))
    row = study.judge(found, 0, study.Target("MEL", 0.85, 0.85), labels, codes)
    assert row == [0.5, 2 / 3, 0.5, 0.5, 1.0]
    assert study.judge(study.Decided(decided), 0, study.Target("MEL", 0.85), labels, codes)[3:] == [0.85, 0.0]
    # An alarm of the class is judged instead of the decided class.
    fires = np.array([True, True, True, False, False])
    alarmed = study.Decided(decided, (0.5,), (True,), {"MEL": fires})
    assert study.judge(alarmed, 0, study.Target("MEL", 0.85), labels, codes)[:3] == [1.0, 1.0, 1.0]
