"""skinlesion: dermoscopic images to calibrated, explained, triaged results.

Research use only. Not a medical device.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

# Libraries report their use to their makers (onnxruntime: every model that it loads) unless they are told
# not to before they are loaded. A variable that is set already stays as it is.
for _refusal in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_refusal, "1")
# OpenVINO knows no such variable; it sends nothing if this package cannot be loaded.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

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
