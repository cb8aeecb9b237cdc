"""skinlesion: dermoscopic images to calibrated, explained, triaged results.

Research use only. Not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Classifier", "PatientMetadata", "__version__"]

if TYPE_CHECKING:
    from skinlesion_cli.api import Classifier, PatientMetadata


def __getattr__(name: str) -> Any:
    # Lazy, so that `import skinlesion_cli` (and with it `skinlesion --help`) never loads torch.
    if name in ("Classifier", "PatientMetadata"):
        from skinlesion_cli import api

        return getattr(api, name)
    raise AttributeError(f"module 'skinlesion_cli' has no attribute {name!r}")
