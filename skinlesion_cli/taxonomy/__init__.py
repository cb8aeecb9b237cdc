"""Class lists: what a dataset is labelled with, which of it is malignant, how lists map onto one another."""

from __future__ import annotations

from typing import Final

from skinlesion_cli.taxonomy.class_list import MALIGNANT, ClassList, ClassListError, DiagnosticClass
from skinlesion_cli.taxonomy.mapping import ClassMapping, mapping_between
from skinlesion_cli.taxonomy.names import plain_name
from skinlesion_cli.taxonomy.reading import parse_class_list, read_class_list
from skinlesion_cli.taxonomy.shipped import DEFAULT, SHIPPED, shipped, shipped_text

__all__ = [
    "DEFAULT",
    "DISCLAIMER",
    "MALIGNANT",
    "SHIPPED",
    "ClassList",
    "ClassListError",
    "ClassMapping",
    "DiagnosticClass",
    "mapping_between",
    "parse_class_list",
    "plain_name",
    "read_class_list",
    "shipped",
    "shipped_text",
]

DISCLAIMER: Final[str] = "Research use only. Not a medical device."
