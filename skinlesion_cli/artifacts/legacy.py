"""Names that earlier versions wrote into artifacts: the one place that knows them.

Old names are replaced before a body is checked against its schema, so that everything after it knows the
present names only. Hashes are not affected: they are those of the file as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# kind -> old key -> present key, wherever in the body it stands.
_RENAMED_KEYS: Mapping[str, Mapping[str, str]] = {
    "ensemble": {"voice": "member_group"},
    "calibration": {
        "promises": "guarantees",
        "guarantee": "guarantee_settings",
        "reach": "margin_factor",
        "guard": "protects",
        "n_looks": "n_steps",
        "mean_looks": "mean_steps",
        "look_shares": "step_shares",
        "view_shares": "step_shares",
    },
}
# Name of a tensor in a payload of predictions -> its present name.
RENAMED_TENSORS: Mapping[str, str] = {"voice_probabilities": "group_probabilities"}


def with_present_names(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an artifact of this kind, with the present name of every key."""
    renamed = _RENAMED_KEYS.get(kind, {})
    # The rule stood twice beside what was measured of it.
    twice = "stopping" if "stopping_rule" in body else None
    return {renamed.get(key, key): _inner(kind, value) for key, value in body.items() if key != twice}


def _inner(kind: str, value: Any) -> Any:
    if isinstance(value, dict):
        return with_present_names(kind, value)
    return [_inner(kind, item) for item in value] if isinstance(value, list) else value
