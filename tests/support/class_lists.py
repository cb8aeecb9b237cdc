"""Class lists that tests use, and the tables of predictions of the usual one."""

from __future__ import annotations

from skinlesion_cli.inference.prediction import table_of
from skinlesion_cli.taxonomy.shipped import shipped

ISIC2018 = shipped("isic2018")
TABLE = table_of(ISIC2018)
