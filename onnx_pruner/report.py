"""What pruning did, as plain values: for people, and for programs through `to_dict`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LayerChange:
    """One layer with weights, before and after: shape of its weight, parameters, multiply–accumulates per sample."""

    name: str
    op: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    parameters_before: int
    parameters_after: int
    macs_before: int | None
    macs_after: int | None


@dataclass(frozen=True)
class Kept:
    """Channels of a tensor that are constant or that nothing reads, yet stayed, and why."""

    tensor: str
    channels: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """Layers with weights that were not looked at, how many parameters they hold, and why."""

    layers: tuple[str, ...]
    parameters: int
    reason: str


@dataclass(frozen=True)
class PruneReport:
    """The outcome of one `prune`: counts of float weights, file bytes, seconds per step, largest relative
    difference.
    """

    source: str
    align: int
    unchanged: bool
    layers: tuple[LayerChange, ...]
    parameters_before: int
    parameters_after: int
    parameters_after_align_1: int
    macs_before: int | None
    macs_after: int | None
    bytes_before: int
    bytes_after: int
    batch_norms_fused: int
    channels_before: int
    channels_removed: int
    nodes_before: int
    nodes_after: int
    external_data: bool = False  # whether the source kept its weights in other files
    narrowed: tuple[str, ...] = ()  # layers that read or make some channels only, by a Gather
    kept: tuple[Kept, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    largest_difference: float | None = None
    verified: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """What was removed, in a few lines."""
        if self.unchanged:
            return f"{self.source}: nothing to remove and no BatchNormalization to fold"
        lines = [
            f"{self.source}: removed {self.channels_removed:,} of {self.channels_before:,} channels, "
            f"folded {self.batch_norms_fused} BatchNormalization",
            _change("parameters", self.parameters_before, self.parameters_after),
        ]
        if self.macs_before is not None and self.macs_after is not None:
            lines.append(_change("multiply–accumulates", self.macs_before, self.macs_after))
        lines.append(_change("bytes", self.bytes_before, self.bytes_after))
        if self.narrowed:
            lines.append(f"layers that read or make some channels only, by a Gather: {len(self.narrowed)}")
        if self.largest_difference is None:
            return "\n".join([*lines, "not verified"])
        told = f"verified: outputs equal, largest difference {self.largest_difference:.1e} of their scale"
        return "\n".join([*lines, told])

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


def _change(what: str, before: int, after: int) -> str:
    return f"{what}: {before:,} → {after:,} ({after / max(before, 1):.1%})"
