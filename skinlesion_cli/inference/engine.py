"""The ensemble at work: pixels in, probabilities (and, on request, features) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.data.metadata import FIELDS, PatientMetadata, encode
from skinlesion_cli.data.preprocess import to_field
from skinlesion_cli.decisions.ensemble import combine
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.base import Outputs, Runtime, softmax

ToInput = Callable[[np.ndarray, Preprocessing], np.ndarray]


class Steps(Protocol):
    """The order in which an ensemble sees an image: at each step one member group at one view."""

    @property
    def order(self) -> Sequence[tuple[int, int]]:
        """Member group and view of every step."""

    def estimate(self, sums: np.ndarray, n_steps: int) -> np.ndarray:
        """float32 (n, n_classes), the ensemble's probabilities after `n_steps` steps, from sums
        (n, n_groups, n_classes).
        """


class Stopping(Protocol):
    """When enough forward passes of an image have been averaged."""

    @property
    def weights(self) -> Sequence[float]:
        """Of the member groups; a single one: all members are one group."""

    @property
    def steps(self) -> Steps:
        """In their order."""

    def converged(self, probabilities: np.ndarray, n_steps: int) -> np.ndarray:
        """bool (n,): which estimates after `n_steps` steps, shape (n, n_classes), need no further forward
        pass.
        """


@dataclass(frozen=True)
class EngineMember:
    """One network, ready to run. `classifier` is its last layer's weight, float32 (n_classes, n_features);
    `metadata_fields` is what its branch for patient metadata takes, empty where it has none.
    """

    name: str
    weight: float
    preprocessing: Preprocessing
    runtime: Runtime
    classifier: np.ndarray
    metadata_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchOutput:
    """What the ensemble says of n images.

    Attributes
    ----------
    probabilities : float32 (n, n_classes), the ensemble's mean over views, before calibration.
    forward_passes : int64 (n,), how many forward passes, each one member at one view, were averaged.
    layers : for each member what it gives for the unturned view; empty unless asked for.
    pooled_features : float32 (n, n_features), the mean over the places of one member's map;
        None unless asked for.
    view_probabilities : float32 (n_members, n_views, n, n_classes), of every member at every view,
        averaged or not; None unless asked for.
    """

    probabilities: np.ndarray
    forward_passes: np.ndarray
    layers: tuple[Outputs, ...] = ()
    view_probabilities: np.ndarray | None = None
    pooled_features: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: Sequence[BatchOutput], order: np.ndarray) -> BatchOutput:
        """Outputs of parts of a batch, made with the same options, as one; `order` (n,) says which row of all
        parts, one after the other, each image has.
        """
        first = parts[0]

        def in_order(values: Sequence[np.ndarray | None], axis: int = 0) -> np.ndarray:
            return np.concatenate([value for value in values if value is not None], axis=axis).take(
                order, axis
            )

        return cls(
            in_order([part.probabilities for part in parts]),
            in_order([part.forward_passes for part in parts]),
            tuple(
                Outputs(*(in_order(tensors) for tensors in zip(*of_member, strict=True)))
                for of_member in zip(*(part.layers for part in parts), strict=True)
            ),
            None
            if first.view_probabilities is None
            else in_order([part.view_probabilities for part in parts], axis=2),
            None if first.pooled_features is None else in_order([part.pooled_features for part in parts]),
        )


class Engine:
    """Runs all members over all views, or with `stopping` as many forward passes as an image needs.

    `weights` (n_members,) sum to 1.
    `member_groups` are the members (by index) that a stopping rule takes together, such as the folds of one
    network; without it each member is a group of its own. `tta_mode` is the name of the views' mode. It may
    be used from several threads at once.
    """

    def __init__(
        self,
        members: Sequence[EngineMember],
        weights: np.ndarray,
        views: Sequence[str],
        to_input: ToInput,
        *,
        stopping: Stopping | None = None,
        member_groups: Sequence[Sequence[int]] | None = None,
        tta_mode: str = "",
    ) -> None:
        self.members, self.views, self.to_input = tuple(members), tuple(views), to_input
        self.stopping, self.tta_mode = stopping, tta_mode
        self.weights = weights
        each = [[index] for index in range(len(self.members))]
        self._groups = [list(group) for group in member_groups or each]
        as_one = stopping is not None and len(stopping.weights) == 1
        self.member_groups = [list(range(len(self.members)))] if as_one else self._groups
        if stopping is not None and len(stopping.weights) != len(self.member_groups):
            raise ValueError(
                f"{len(self.member_groups)} member groups, but a stopping rule for {len(stopping.weights)}"
            )

    def stopping_by(self, stopping: Stopping | None) -> Engine:
        """The same networks and views with another stopping rule; None: every forward pass of every image."""
        return Engine(
            self.members,
            self.weights,
            self.views,
            self.to_input,
            stopping=stopping,
            member_groups=self._groups,
            tta_mode=self.tta_mode,
        )

    @property
    def metadata_fields(self) -> tuple[str, ...]:
        """What any of the members takes besides the image, in the order of `data.metadata.FIELDS`."""
        taken = {name for member in self.members for name in member.metadata_fields}
        return tuple(name for name in FIELDS if name in taken)

    @property
    def runtime(self) -> str:
        """Name of the runtime of the members."""
        return self.members[0].runtime.name

    def run(
        self,
        images: Sequence[np.ndarray],
        *,
        patients: Sequence[PatientMetadata] | None = None,
        keep_layers: bool = False,
        keep_views: bool = False,
        pool_features_of: int | None = None,
    ) -> BatchOutput:
        """Predict a batch of images, each uint8 (height, width, 3) of any size.

        `patients` is what is known besides each image, for the networks that take it; None: nothing is.
        `pool_features_of` is the member (by index) whose pooled features are wanted. With `keep_views` every
        member sees every view, also where a stopping rule needs fewer for its estimate.
        """
        inputs: dict[Preprocessing, np.ndarray] = {}
        for member in self.members:
            if member.preprocessing not in inputs:
                inputs[member.preprocessing] = np.stack(
                    [self.to_input(image, member.preprocessing) for image in images]
                )
        fields = inputs
        if any(tta.is_crop(view) for view in self.views):
            fields = {
                preprocessing: np.stack([to_field(image, preprocessing) for image in images])
                for preprocessing in inputs
            }
        batch = _Batch(self.members, inputs, fields, patients)
        layers = [batch.outputs(index) for index in range(len(self.members))] if keep_layers else []
        pooled = None
        if pool_features_of is not None:
            of_member = layers[pool_features_of] if layers else batch.outputs(pool_features_of)
            pooled = of_member.features.mean(axis=(2, 3))
        by_view = self._every_view(batch) if keep_views or self.stopping is None else None
        if self.stopping is not None:
            probabilities, forward_passes = self._until_converged(batch, self.stopping)
        else:
            assert by_view is not None
            means = by_view.mean(axis=1, dtype=np.float64).astype(np.float32)
            probabilities = combine(means, self.weights)
            forward_passes = np.full(batch.n, len(self.views) * len(self.members), dtype=np.int64)
        return BatchOutput(
            probabilities, forward_passes, tuple(layers), by_view if keep_views else None, pooled
        )

    def pooled_features(self, images: Sequence[np.ndarray], index: int) -> np.ndarray:
        """One member's features of images, float32 (n, n_features):
        the mean over the places of its last map.
        """
        member = self.members[index]
        pixels = np.stack([self.to_input(image, member.preprocessing) for image in images])
        result: np.ndarray = (
            _Batch(self.members, {member.preprocessing: pixels}, {}).outputs(index).features.mean(axis=(2, 3))
        )
        return result

    def _every_view(self, batch: _Batch) -> np.ndarray:
        """Every member at every view, (n_members, n_views, n, n_classes); a view that was drawn
        twice runs once.
        """
        rows = np.arange(batch.n)
        return np.stack(
            [
                np.stack([batch.probabilities(index, view, rows) for view in self.views])
                for index in range(len(self.members))
            ]
        )

    def _until_converged(self, batch: _Batch, stopping: Stopping) -> tuple[np.ndarray, np.ndarray]:
        """Step after step, for the images that have not converged."""
        steps, weights = stopping.steps, self.weights
        n_classes = len(self.members[0].classifier)
        sums = np.zeros((batch.n, len(self.member_groups), n_classes))
        estimates = np.empty((batch.n, n_classes), dtype=np.float32)
        forward_passes = np.zeros(batch.n, dtype=np.int64)
        waiting = np.arange(batch.n)
        for n_steps, (group, view) in enumerate(steps.order, start=1):
            members = self.member_groups[group]
            shares = weights[members] / weights[members].sum()
            for index, share in zip(members, shares, strict=True):
                sums[waiting, group] += share * batch.probabilities(index, self.views[view], waiting)
            forward_passes[waiting] += len(members)
            estimates[waiting] = steps.estimate(sums[waiting], n_steps)
            waiting = waiting[~stopping.converged(estimates[waiting], n_steps)]
            if not len(waiting):
                break
        return estimates, forward_passes


class _Batch:
    """Images of one batch at every member's input size, what crops are cut from, and the probabilities that
    are known of them.
    """

    def __init__(
        self,
        members: Sequence[EngineMember],
        inputs: dict[Preprocessing, np.ndarray],
        fields: dict[Preprocessing, np.ndarray],
        patients: Sequence[PatientMetadata] | None = None,
    ) -> None:
        self.members, self.inputs, self.fields = members, inputs, fields
        self.n = len(next(iter(inputs.values())))
        taken = {member.metadata_fields for member in members if member.metadata_fields}
        self._metadata = {} if patients is None else {fields: encode(patients, fields) for fields in taken}
        self._known: dict[tuple[int, str], np.ndarray] = {}

    def outputs(self, index: int) -> Outputs:
        """All outputs of a member for all images, unturned; that view need not run again."""
        member = self.members[index]
        pixels = tta.apply("identity", self.inputs[member.preprocessing])
        outputs = member.runtime.outputs(pixels, *self._known_besides(member))
        self._known[index, "identity"] = softmax(outputs.logits)
        return outputs

    def _known_besides(
        self, member: EngineMember, rows: np.ndarray | slice = slice(None)
    ) -> list[np.ndarray]:
        """The second input of a member, of some images; none where it takes none."""
        encoded = self._metadata.get(member.metadata_fields)
        return [] if encoded is None else [encoded[rows]]

    def probabilities(self, index: int, view: str, rows: np.ndarray) -> np.ndarray:
        """A member's softmax of a view of some images, float32 (n_rows, n_classes)."""
        if (index, view) in self._known:
            result: np.ndarray = self._known[index, view][rows]
            return result
        member = self.members[index]
        inputs, fields = self.inputs[member.preprocessing], self.fields[member.preprocessing]
        seen = tta.show(view, inputs[rows], fields[rows], member.preprocessing.interpolation)
        metadata = self._known_besides(member, rows)
        values = softmax(member.runtime.logits(seen, *metadata))
        if len(rows) == self.n:
            self._known[index, view] = values
        return values
