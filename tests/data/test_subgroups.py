"""Groups that a model is judged on by themselves."""

from __future__ import annotations

import pandas as pd

from skinlesion_cli.data.subgroups import by_patient

ROWS = pd.DataFrame(
    {
        "sex": ["female", "male", "", "male"],
        "site": ["back", "back", "", "head/neck"],
        "age_years": ["29", "30", "", "71"],
        "source": ["isic2018", "isic2017", "isic2017", "isic2018"],
    },
    dtype=str,
)


def test_groups_by_source_where_there_are_several():
    masks = by_patient(ROWS)
    assert masks["source: isic2017"].tolist() == [False, True, True, False]
    assert masks["source: isic2018"].tolist() == [True, False, False, True]
    assert not any(name.startswith("source") for name in by_patient(ROWS.assign(source="one")))
    assert not any(name.startswith("source") for name in by_patient(ROWS.drop(columns="source")))


def test_groups_by_sex_site_and_age_with_what_is_unknown():
    masks = by_patient(ROWS)
    assert masks["sex: male"].tolist() == [False, True, False, True]
    assert masks["sex: unknown"].tolist() == [False, False, True, False]
    assert masks["site: head/neck"].tolist() == [False, False, False, True]
    assert masks["age: under 30"].tolist() == [True, False, False, False]
    assert masks["age: 30-49"].tolist() == [False, True, False, False]
    assert masks["age: unknown"].tolist() == [False, False, True, False]
