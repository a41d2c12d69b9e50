"""What the server is told: where it listens, how much it takes on, and how it behaves."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for, and how much all of them together.

    `body_bytes` and `batch` (rows) are of one request; `workers` answer at a time and `queue` more may wait.
    `body_s` is how long a client may pause while it sends; `request_s` how long a request may wait for its answer, and
    its body for its end; after the signal to stop, requests are taken for `linger_s` and may go on for `drain_s`.
    """

    body_bytes: int = 64 << 20
    batch: int = 1024
    workers: int = 1
    queue: int = 256
    body_s: float = 10.0
    request_s: float = 60.0
    linger_s: float = 0.5
    drain_s: float = 30.0


@dataclass(frozen=True)
class Settings:
    """How a portfolio is served, as the model `name`. `start` is the variant to begin with, None the median one;
    `session_threads` are onnxruntime's for one run, 0 for as many as it chooses; `batch_ms` is how long a request may
    wait for others to share a run with, 0 for not at all. With `allow_load` a client may have the file read again;
    `trusted` is the public key that must have signed it.
    """

    portfolio: Path
    name: str
    host: str = "127.0.0.1"
    port: int = 8080
    start: str | None = None
    providers: tuple[str, ...] = ()
    session_threads: int = 1
    batch_ms: float = 0.0
    trusted: Path | None = None
    allow_load: bool = False
    access_log: bool = True
    limits: Limits = field(default_factory=Limits)
