"""What is told of switches: a record of each, its log line, and counts of what a switcher has done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class SwitchRecord(NamedTuple):
    """What one switch cost. `bytes` were inflated; `stall_ms` is how long callers of `run` were held up by
    it.

    `prepare_ms` is other than zero only when the variant's graph had to be optimised first, once per device. `by` is
    "call", "policy" or "update", and `why` their reason in words. `time_s` is of the switcher's clock, `unix_s` the
    time of day, both when the new variant took over.
    """

    previous: str
    active: str
    inflate_ms: float = 0.0
    build_ms: float = 0.0
    warmup_ms: float = 0.0
    stall_ms: float = 0.0
    bytes: int = 0
    prepare_ms: float = 0.0
    time_s: float = 0.0
    unix_s: float = 0.0
    by: str = "call"
    why: str = ""

    @property
    def changed(self) -> bool:
        """Whether another model serves now than before: an update may bring one of the same name."""
        return self.previous != self.active or self.by == "update"

    @property
    def total_ms(self) -> float:
        """All of it, in milliseconds."""
        return self.prepare_ms + self.inflate_ms + self.build_ms + self.warmup_ms


def tell(record: SwitchRecord) -> None:
    """Log one line of the switch: from, to, who, why, cost and the time of day in UTC."""
    import logging  # late: the runtime's import is held to a budget

    log = logging.getLogger(__name__)
    if not log.isEnabledFor(logging.INFO):
        return
    import datetime

    time = datetime.datetime.fromtimestamp(record.unix_s, datetime.timezone.utc).isoformat(timespec="milliseconds")
    why = f" ({record.why})" if record.why else ""
    log.info(
        "%s -> %s by %s%s: ready in %.1f ms, callers waited %.1f ms, %d bytes inflated, at %s",
        *(record.previous, record.active, record.by, why),
        *(record.total_ms, record.stall_ms, record.bytes, time),
    )


@dataclass
class Counts:
    """What a switcher has done since it was made. Whoever writes holds the switcher's lock."""

    requests: int = 0
    failed_requests: int = 0
    request_ms: float = 0.0
    switches: int = 0
    failed_switches: int = 0
    updates: int = 0
    refused_updates: int = 0
    switch_ms: float = 0.0
    stall_ms: float = 0.0
    inflated_bytes: int = 0
    sure_images: int = 0  # of a cascade: answered by the active variant
    unsure_images: int = 0  # and by the larger one that it asked

    def add_switch(self, record: SwitchRecord) -> None:
        """Count a switch, or an update, and what it cost."""
        if record.by == "update":
            self.updates += 1
        else:
            self.switches += 1
        self.switch_ms += record.total_ms
        self.stall_ms += record.stall_ms
        self.inflated_bytes += record.bytes

    def to_dict(self) -> Mapping[str, int | float]:
        """Return them by name."""
        return dict(vars(self))
