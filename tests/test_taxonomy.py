"""Class lists: what shipped ones say, what own ones are refused for, and how lists map onto one another."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.taxonomy import (
    SHIPPED,
    ClassList,
    ClassListError,
    DiagnosticClass,
    mapping_between,
    parse_class_list,
    plain_name,
    read_class_list,
    shipped,
    shipped_text,
)
from skinlesion_cli.taxonomy.shipped import class_list

OWN = """\
name: clinic
classes:
  - code: MEL
    title: melanoma
    malignant: true
    parents: [malignant]
  - code: NV
    title: nevus
    malignant: false
    synonyms: [mole]
    parents: [benign]
"""


def own(old: str = "", new: str = "") -> ClassList:
    assert old in OWN
    return parse_class_list(OWN.replace(old, new, 1), "own.yaml", "own")


def entry(code: str, *, malignant: bool = False, **more: object) -> DiagnosticClass:
    return DiagnosticClass(code, f"title of {code}", malignant, "#000000", **more)  # type: ignore[arg-type]


def test_the_default_list_is_that_of_isic_2018() -> None:
    classes = shipped("isic2018")
    assert classes.codes == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    assert classes.n_classes == 7
    assert classes.malignant_codes == ("MEL", "BCC", "AKIEC")
    assert classes.is_malignant.tolist() == [True, False, True, True, False, False, False]
    assert classes.index["BKL"] == 4
    assert classes.titles["DF"] == "dermatofibroma"
    assert classes.columns[3] == "p_AKIEC"
    assert classes.has_malignant
    assert classes.targets() == (*classes.codes, "malignant")


def test_isic_2019_has_eight_classes_in_the_order_of_its_ground_truth() -> None:
    classes = shipped("isic2019")
    assert classes.codes == ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    assert classes.malignant_codes == ("MEL", "BCC", "AK", "SCC")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_list_is_read_by_its_name_and_survives_json(name: str) -> None:
    classes = shipped(name)
    assert classes.name == name
    assert ClassList.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes
    assert hash(classes) == hash(parse_class_list(shipped_text(name), name, name))
    assert len({each.colour for each in classes.entries}) == classes.n_classes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Melanoma", "MEL"),
        ("melanocytic-nevus", "NV"),
        ("actinic_keratosis", "AKIEC"),
        ("Bowen's disease", "AKIEC"),
        ("seborrhoeic keratosis", "BKL"),
        ("actinic keratosis / intraepithelial carcinoma", "AKIEC"),
        ("vasc", "VASC"),
        ("keratosis", None),
        ("carcinoma", None),
        ("SCC", None),
        ("squamous cell carcinoma", None),
        ("", None),
    ],
)
def test_names_of_isic_2018(text: str, code: str | None) -> None:
    assert shipped("isic2018").class_named(text) == code


def test_plain_names() -> None:
    assert plain_name("  Basal-cell_Carcinoma ") == "basal cell carcinoma"
    assert plain_name("Naevus, n\u00e9vus") == "naevus nevus"


def test_an_own_list_and_its_defaults() -> None:
    classes = own("name: clinic\n", "")
    assert classes.name == "own"
    assert classes.codes == ("MEL", "NV")
    assert classes.class_named("MOLE") == "NV"
    assert [each.colour for each in classes.entries] == ["#b3272d", "#8a6f4e"]
    assert own("malignant: true", "malignant: false").has_malignant is False
    assert own("malignant: true", "malignant: false").targets() == ("MEL", "NV")


def test_a_code_that_yaml_takes_for_a_truth_value_is_a_code() -> None:
    assert own("code: NV", "code: NO").codes == ("MEL", "NO")


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("code: NV", "code: MEL", 7, "'MEL' occurs twice"),
        ("code: NV", "code: mel", 7, "'mel' occurs twice"),
        ("code: NV", "code: N V", 7, "'N V'"),
        ("code: NV", "code: 1NV", 7, "'1NV'"),
        ("code: NV", "code: MALIGNANT", 7, "reserved"),
        ("code: NV", "code: lesion_id", 7, "reserved"),
        ("code: NV", "code: [NV]", 7, "text"),
        ("title: nevus", "title: melanoma", 8, "both claim the name 'melanoma'"),
        ("title: nevus", 'title: ""', 8, "empty"),
        ("title: nevus", 'title: "\\a"', 8, "printable"),
        ("title: nevus", "colour: red", 7, "`title` is missing"),
        ("malignant: false", "malignant: true", 3, "no class is benign"),
        ("malignant: false", "malignant: perhaps", 9, "true or false"),
        ("malignant: false", "malignant: false\n    colour: red", 10, "'red'"),
        ("malignant: false", "malignant: false\n    weight: 2", 10, "unknown key 'weight'"),
        ("malignant: false", "malignant: false\n    title: again", 10, "`title` occurs twice"),
        ("[mole]", "[mole, Melanoma]", 10, "both claim the name 'Melanoma'"),
        ("[mole]", "['--']", 10, "no letter"),
        ("[mole]", "mole", 10, "a list"),
        ("name: clinic", "name: a/b", 1, "'a/b'"),
        ("name: clinic", "title: clinic", 1, "unknown key 'title'"),
        ("classes:", "klasses:", 2, "unknown key 'klasses'"),
    ],
)
def test_a_wrong_list_is_refused_with_the_line(old: str, new: str, line: int, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        own(old, new)
    assert f"own.yaml, line {line}: " in caught.value.message
    assert what in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "[]", "name: a", "classes: []", "classes: [{code: A, title: a, malignant: no}]", "a: *b", "{"],
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_class_list(text, "own.yaml", "own")


def test_a_file_is_named_where_it_is_unreadable_or_wrong(tmp_path) -> None:
    with pytest.raises(UsageError, match="lacking"):
        read_class_list(tmp_path / "lacking.yaml")
    (tmp_path / "own.yaml").write_text(OWN.replace("name: clinic\n", ""))
    assert read_class_list(tmp_path / "own.yaml").name == "own"
    (tmp_path / "long.yaml").write_text("#" * 300_000)
    with pytest.raises(UsageError, match="262,144 bytes"):
        read_class_list(tmp_path / "long.yaml")


@pytest.mark.parametrize("count", [0, 1, 51])
def test_a_list_has_two_to_fifty_classes(count: int) -> None:
    with pytest.raises(ClassListError):
        ClassList("x", tuple(entry(f"C{number}") for number in range(count)))
    assert ClassList("x", tuple(entry(f"C{number}") for number in range(50))).n_classes == 50


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"name": 3},
        {"classes": 3},
        {"classes": [{}]},
        {"classes": [{**entry("A").__dict__, "synonyms": [], "parents": [], "malignant": 1}]},
        {"classes": [{**entry("A").__dict__, "synonyms": [1], "parents": []}]},
        {"classes": [{**entry("A").__dict__, "synonyms": [], "parents": [], "title": None}]},
    ],
)
def test_a_damaged_stored_list_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ClassListError):
        ClassList.from_dict({**shipped("melanoma").to_dict(), **change})


def test_lists_agree_by_codes_and_malignancy_not_by_wording() -> None:
    classes = shipped("melanoma")
    renamed = dataclasses.replace(classes, name="other")
    assert classes.agrees_with(renamed)
    assert not classes.agrees_with(shipped("malignancy"))
    swapped = ClassList("x", classes.entries[::-1])
    assert not classes.agrees_with(swapped)
    assert not own().agrees_with(own("malignant: true", "malignant: false"))


def test_an_unknown_code_or_list_is_named_with_what_there_is() -> None:
    assert own().require("NV") == 1
    with pytest.raises(UsageError, match="MEL, NV"):
        own().require("BCC")
    with pytest.raises(UsageError, match="isic2019"):
        shipped("isic2020")


def test_seven_classes_count_as_melanoma_or_other() -> None:
    mapping = mapping_between(shipped("isic2018"), shipped("melanoma"))
    assert mapping.positions == (0, 1, 1, 1, 1, 1, 1)
    p = np.array([[0.1, 0.2, 0.3, 0.05, 0.15, 0.12, 0.08]])
    assert mapping.probabilities(p) == pytest.approx(np.array([[0.1, 0.9]]))
    assert mapping.probabilities(p.astype(np.float32)).dtype == np.float32
    assert mapping.labels(np.array([0, 4, -1])).tolist() == [0, 1, -1]
    assert mapping.sentences() == [
        "NV + BCC + AKIEC + BKL + DF + VASC of isic2018 count as OTHER of melanoma",
    ]


def test_eight_classes_count_as_seven_with_both_keratoses_in_one() -> None:
    mapping = mapping_between(shipped("isic2019"), shipped("isic2018"))
    assert mapping.positions == (0, 1, 2, 3, 4, 5, 6, 3)
    p = np.array([[0.0, 0.1, 0.1, 0.25, 0.1, 0.1, 0.1, 0.25]])
    assert mapping.probabilities(p) == pytest.approx(np.array([[0.0, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1]]))
    assert mapping.sentences() == ["AK + SCC of isic2019 count as AKIEC of isic2018"]


def test_levels_of_the_archive() -> None:
    assert mapping_between(shipped("isic2018"), shipped("malignancy")).positions == (1, 0, 1, 1, 0, 0, 0)
    # The archive calls actinic keratosis indeterminate, squamous cell carcinoma malignant.
    first = mapping_between(shipped("isic2019"), shipped("diagnosis_1"))
    assert first.positions == (1, 0, 1, 2, 0, 0, 0, 1)
    seven = mapping_between(shipped("isic2018"), shipped("diagnosis_1"))
    assert seven.sentences()[-1] == "no class of isic2018 counts as IND of diagnosis_1"


def test_a_list_maps_onto_itself() -> None:
    mapping = mapping_between(shipped("isic2018"), shipped("isic2018"))
    assert mapping.is_identity
    assert mapping.sentences() == []
    assert (mapping.matrix == np.eye(7)).all()


@pytest.mark.parametrize(
    ("fine", "coarse", "without"),
    [
        ("isic2018", "isic2019", "AKIEC"),
        ("melanoma", "isic2018", "OTHER"),
        ("malignancy", "melanoma", "MAL"),
        ("malignancy", "diagnosis_1", "2 classes"),
        ("diagnosis_1", "malignancy", "IND"),
    ],
)
def test_never_the_other_way(fine: str, coarse: str, without: str) -> None:
    with pytest.raises(DataError) as caught:
        mapping_between(shipped(fine), shipped(coarse))
    assert without in caught.value.message
    assert fine in caught.value.message
    assert coarse in caught.value.message


def test_the_code_decides_before_parents_and_parents_before_the_title() -> None:
    coarse = ClassList("coarse", (entry("A", malignant=True), entry("B", synonyms=("title of D", "group b"))))
    fine = ClassList("fine", (entry("A", parents=("B",)), entry("C", parents=("group b",)), entry("D")))
    assert mapping_between(fine, coarse).positions == (0, 1, 1)
    moved = ClassList(
        "fine", (entry("A"), entry("C", parents=("nowhere", "A", "B")), entry("D", parents=("A",)))
    )
    assert mapping_between(moved, coarse).positions == (0, 0, 0)


def test_a_list_is_found_by_its_name_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(shipped_text("melanoma"), encoding="utf-8")
    assert class_list("melanoma").codes == ("MEL", "OTHER")
    assert class_list(str(tmp_path / "own.yaml")).codes == ("MEL", "OTHER")
    # Without a suffix it is a name, and a misspelt one is answered with the names that there are.
    with pytest.raises(UsageError, match="melanom") as refused:
        class_list("melanom")
    assert "isic2019" in (refused.value.hint or "")


def test_sums_of_float32_stay_at_most_one() -> None:
    mapping = mapping_between(shipped("isic2018"), shipped("melanoma"))
    # Six times 1/6 rounded up, as float32: their exact sum is above 1.
    sixth = np.nextafter(np.float32(1 / 6), np.float32(1))
    p = np.array([[0.0, *[sixth] * 6]], np.float32)
    assert float(p.astype(np.float64).sum()) > 1.0
    assert mapping.probabilities(p).max() == 1.0
