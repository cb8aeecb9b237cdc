"""Where the class activation maps of a batch lie, and the table that describes them.

Names mirror the input folders and never collide, whatever the names of the images.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

# Characters that some file system refuses, and controls. Everything else is kept, including Unicode.
_REFUSED = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_MAX_NAME_BYTES = 180
COLUMNS = (
    *("id", "class", "decision", "probability", "magnitude", "total", "all_zero"),
    *("outside_lesion", "at_border", "overlay", "raw"),
)


@dataclass(frozen=True)
class MapRecord:
    """One map of one image.

    `magnitude` is the map's maximum before it was scaled, `total` its sum; for the fast Grad-CAM `total` is
    what the regions that support the class add to its logit. `overlay` and `raw` are paths below the folder,
    empty where none was written. `outside_lesion` and `at_border` are shares of the map's sum, 0 to 1, as in
    `explain.placement.Placement`; None where undefined.
    """

    id: str
    class_name: str
    decision: str
    probability: float
    magnitude: float
    total: float
    overlay: str
    raw: str = ""
    outside_lesion: float | None = None
    at_border: float | None = None

    @property
    def all_zero(self) -> bool:
        return self.magnitude == 0.0

    def row(self) -> dict[str, str]:
        """As a row of the table with `COLUMNS`."""
        return {
            "id": self.id,
            "class": self.class_name,
            "decision": self.decision,
            "probability": f"{self.probability:.6f}",
            "magnitude": f"{self.magnitude:.6g}",
            "total": f"{self.total:.6g}",
            "all_zero": "true" if self.all_zero else "false",
            "outside_lesion": _share(self.outside_lesion),
            "at_border": _share(self.at_border),
            "overlay": self.overlay,
            "raw": self.raw,
        }


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def relative_path(identity: str, class_name: str | None = None, suffix: str = ".png") -> str:
    """Path of an image's map below the folder of maps, with `/`; `class_name` None is the decided class.

    >>> relative_path("a/b.jpg")
    'a/b.jpg.cam.png'
    >>> relative_path("b.jpg", "MEL")
    'b.jpg.cam-MEL.png'
    """
    parts = [part for part in identity.split("/") if part not in ("", ".")]
    safe = [_safe(part) for part in parts] or ["image"]
    if safe != identity.split("/"):
        # A changed name could equal that of another id: the hash of the whole id keeps them distinct.
        safe[-1] += "-" + hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    kind = ".cam" if class_name is None else f".cam-{class_name}"
    return "/".join(safe) + kind + suffix


def _safe(part: str) -> str:
    if part == "..":
        return "_up"
    name = _REFUSED.sub("_", part).encode("utf-8", "replace")
    return name[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
