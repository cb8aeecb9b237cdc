"""The Python front door: `from skinlesion_cli import Classifier`."""

from __future__ import annotations

import os

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model
from skinlesion_cli.data.metadata import PatientMetadata
from skinlesion_cli.inference.prediction import Prediction
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.inference.sources import ImageLike

__all__ = ["Classifier", "ImageLike", "PatientMetadata", "Prediction"]


class Classifier(Predictor):
    """A calibrated ensemble, loaded once. Research use only; not a medical device.

    Examples
    --------
    >>> classifier = Classifier.load("skinlesion-workspace")  # doctest: +SKIP
    >>> classifier.predict(["a.jpg"])[0].decision  # doctest: +SKIP
    'NV'
    """

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto", runtime: str = "auto") -> Classifier:
        """Load the finished ensemble of a workspace or a packed model; `builtin` is the bundled model.

        Parameters
        ----------
        path
            The folder of a workspace or of a packed model, or `builtin`.
        device, runtime
            As `--device` and `--runtime` of `skinlesion predict`.

        Raises
        ------
        ArtifactError
            A stage is missing, damaged, or does not fit the others; says what to run.
        """
        bundle = Bundle.load(resolve_model(os.fspath(path)))
        return cls.of_bundle(bundle, device=device, runtime=runtime)
