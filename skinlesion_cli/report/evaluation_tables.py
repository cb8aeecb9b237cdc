"""An evaluation as lines and tables of text; undefined stays "undefined"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion_cli.result import percent
from skinlesion_cli.taxonomy import ClassList

# Title, columns, rows.
TextTable = tuple[str, list[str], list[list[str]]]


def shown(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """A value with its interval, where there is one."""
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "undefined"
    if low is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def headline(body: Mapping[str, Any], classes: ClassList) -> list[str]:
    """What was judged, and the figures that sum it up."""
    figures, support = body["figures"], body["support"]
    part = f" ({body['part']})" if body["part"] else ""
    names = {"BACC": "bacc", "malignant BACC": "malignant_bacc", "macro AUC": "macro_auc", "ECE": "ece"}
    if not classes.has_malignant:
        del names["malignant BACC"]
    return [
        f"{body['source']}{part}, {body['decision']}: {support['images']:,} images of "
        f"{support['lesions']:,} lesions",
        "   ".join(f"{title} {shown(figures[name])}" for title, name in names.items()),
        *per_thousand(body),
    ]


def per_thousand(body: Mapping[str, Any]) -> list[str]:
    """What triage means for 1,000 images like the evaluated ones; empty where nothing was triaged."""
    if not body.get("triage_figures"):
        return []
    levels = body["triage_figures"]["levels"]
    refer, review, routine = (levels[name] for name in ("refer", "review", "routine"))
    n_malignant = sum(level["malignant"] for level in levels.values())

    def thousandths(figure: Mapping[str, Any]) -> str:
        if figure["low"] is None:
            return f"{1000 * figure['value']:,.0f}"
        return f"{1000 * figure['value']:,.0f} ({1000 * figure['low']:,.0f} to {1000 * figure['high']:,.0f})"

    def risk(level: Mapping[str, Any]) -> str:
        figure = level["risk"]
        if figure["value"] is None:
            return ""
        share = percent(figure["value"])
        if figure["low"] is not None:
            share += f", {100 * figure['low']:.1f} to {percent(figure['high'])}"
        return f", {1000 * level['share']['value'] * figure['value']:,.0f} of them malignant ({share})"

    return [
        f"Of 1,000 images like these, {thousandths(refer['share'])} are referred{risk(refer)};",
        f"{thousandths(review['share'])} are flagged for review{risk(review)};",
        f"{thousandths(routine['share'])} are called routine{risk(routine)}: {routine['malignant']:,} of "
        f"the {n_malignant:,} malignant images here were missed. 95 % intervals by lesion.",
    ]


def tables(body: Mapping[str, Any], classes: ClassList) -> list[TextTable]:
    """By class, targets, guarantees, triage, subgroups, comparison: those that there are."""
    text_tables = [_by_class(body, classes)]
    for title, targets in (("Targets", body["targets"]), ("Guarantees", body["guarantees"])):
        if targets:
            text_tables.append(_targets_met(title, targets))
    if body.get("level_guarantees"):
        text_tables.append(_levels_kept(body["level_guarantees"]))
    if body["triage"]:
        text_tables.append(_triage(body["triage"], body.get("triage_figures")))
    if body["subgroups"]:
        text_tables.append(_subgroups(body["subgroups"]))
    if body["comparison"]:
        text_tables.append(_comparison(body["comparison"]))
    if body.get("patient_metadata"):
        text_tables.append(_metadata_gain(body["patient_metadata"]))
    if body.get("at_prevalence"):
        text_tables.append(_at_prevalence(body))
    if body.get("beside"):
        text_tables.append(_beside(body, classes))
    return text_tables


def _by_class(body: Mapping[str, Any], classes: ClassList) -> TextTable:
    figures, support = body["figures"], body["support"]
    rows = [
        [
            name,
            f"{support['images_by_class'][name]:,} / {support['lesions_by_class'][name]:,}",
            *(shown(figures[f"{figure}/{name}"], 2) for figure in ("sensitivity", "specificity")),
        ]
        for name in classes.codes
    ]
    return (
        "By class (95 % by lesion)",
        ["class", "images / lesions", "image sensitivity", "image specificity"],
        rows,
    )


def _targets_met(title: str, targets: list[dict[str, Any]]) -> TextTable:
    words = {True: "kept", False: "missed", None: "undefined"}
    rows = []
    for target in targets:
        floor = target["target_specificity"]
        rows.append(
            [
                target["class_name"],
                f"{target['target_sensitivity']:.3f} / " + ("none" if floor is None else f"{floor:.3f}"),
                f"{shown(target['sensitivity'], 2)} of {target['sensitivity']['n']:,}",
                f"{shown(target['specificity'], 2)} of {target['specificity']['n']:,}",
                words[target["met"]],
            ]
        )
    columns = ["class", "sens. / spec.", "lesion sensitivity", "lesion specificity", "here"]
    return f"{title} (lesions, exact 95 %)", columns, rows


def _levels_kept(kept: list[dict[str, Any]]) -> TextTable:
    words = {True: "kept", False: "broken", None: "undefined"}
    rows = [
        [
            each["level"],
            f"{'at least' if each['figure'] == 'ppv' else 'at most'} {each['guaranteed']:.3f} malignant",
            _share(each["photographs"]),
            f"{shown(each['malignant'])} of {each['malignant']['n']:,}",
            words[each["met"]],
        ]
        for each in kept
    ]
    return (
        "Guarantees of triage",
        ["level", "guaranteed", "photographs, by lesion", "lesions (exact 95 %)", "here"],
        rows,
    )


def _triage(levels: Mapping[str, Any], figures: Mapping[str, Any] | None) -> TextTable:
    rows = [
        [
            level,
            f"{counts['images']:,}",
            _share(counts["share_of_malignant"]),
            _share(counts["share_of_benign"]),
            "" if figures is None else shown(figures["levels"][level]["risk"]),
        ]
        for level, counts in levels.items()
        if level != "malignant_lesions_seen"
    ]
    seen = levels["malignant_lesions_seen"]
    title = f"Triage; of {seen['n']:,} malignant lesions referred or reviewed: {shown(seen)}"
    return title, ["level", "images", "of malignant images", "of benign images", "malignant share"], rows


def _subgroups(groups: Mapping[str, Any]) -> TextTable:
    rows = [
        [
            name,
            f"{summary['images']:,} / {summary['lesions']:,}",
            shown(summary["bacc"], 2),
        ]
        for name, summary in groups.items()
    ]
    return (
        "Subgroups (95 % by lesion)",
        ["subgroup", "images / lesions", "BACC"],
        rows,
    )


def _comparison(comparison: Mapping[str, Any]) -> TextTable:
    rows = [
        [
            name,
            "undefined" if difference["theirs"] is None else f"{difference['theirs']:.4f}",
            shown(difference, 4),
        ]
        for name, difference in comparison["differences"].items()
    ]
    return f"Against {comparison['against']} (paired)", ["figure", "theirs", "difference"], rows


def _metadata_gain(gain: Mapping[str, Any]) -> TextTable:
    rows = [
        [name, _share(each["image_alone"]), _share(each["with_metadata"]), shown(each, 4)]
        for name, each in gain["differences"].items()
    ]
    title = f"Patient metadata, on the {gain['images']:,} images of which some is known (paired)"
    return title, ["figure", "image alone", "with it", "difference"], rows


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _at_prevalence(body: Mapping[str, Any]) -> TextTable:
    prevalence, figures = body["at_prevalence"]["prevalence"], body["at_prevalence"]["figures"]
    here = {name: body["support"]["images_by_class"][name] / body["support"]["images"] for name in prevalence}
    wanted = ", ".join(
        f"{name} {percent(share)} (here {percent(here[name])})" for name, share in prevalence.items()
    )
    rows = [
        [name.replace("/", " "), shown(figure)]
        for name, figure in figures.items()
        if figure["value"] is not None
    ]
    return f"At a prevalence of {wanted}; 95 % by lesion", ["figure", "value"], rows


def _compared_beside(classes: ClassList) -> dict[str, str]:
    """Figures that are put side by side; of one class, the malignant one that the list names first."""
    compared = {"bacc": "BACC of the classes with images", "macro_auc": "mean AUC of the classes with images"}
    for code in classes.malignant_codes[:1]:
        compared |= {
            f"auc/{code}": f"AUC of {code}",
            f"sensitivity/{code}": f"image sensitivity for {code}",
            f"specificity/{code}": f"image specificity for {code}",
            "malignant/auc": "AUC of malignancy",
            "malignant/sensitivity": "image sensitivity for malignancy",
            "malignant/specificity": "image specificity for malignancy",
        }
    return compared


def _beside(body: Mapping[str, Any], classes: ClassList) -> TextTable:
    """This evaluation and earlier ones, a column each; figures over the classes that each dataset has."""
    all_of_them = [{"folder": "this one"} | dict(body), *body["beside"]]
    rows = [
        ["images / lesions"]
        + [f"{one['support']['images']:,} / {one['support']['lesions']:,}" for one in all_of_them],
        ["classes without images"]
        + [", ".join(one["support"]["classes_without_images"]) or "none" for one in all_of_them],
    ]
    for name, title in _compared_beside(classes).items():
        cells = [one["figures"].get(name) for one in all_of_them]
        rows.append([title, *("undefined" if cell is None else shown(cell) for cell in cells)])
    columns = [f"{one['folder']}: {one['source']}, {one['decision']}" for one in all_of_them]
    return "Side by side (95 % by lesion)", ["figure", *columns], rows
