"""What the command's options come to."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.runtime.policy import LatencyObjective, QueriesPerSecond
from onnx_shift.serving import command
from onnx_shift.serving.settings import Limits, Settings


def told(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[Settings, object]:
    """Return what the command would serve."""
    found: list[tuple[Settings, object]] = []

    def note(settings: Settings, policy: object, started: object) -> bool:
        found.append((settings, policy))
        return True

    monkeypatch.setattr(command, "serve", note)
    done = CliRunner().invoke(app, ["serve", "folder/digits.zip", *options])
    assert done.exit_code == 0, done.output
    return found[0]


def test_the_defaults_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch) == (Settings(Path("folder/digits.zip"), "digits"), None)


def test_every_option_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "--host ::1 --port 1 --name n --start small --provider P --threads 2 --workers 3 --queue 4 --max-body 5 "
        "--max-batch 6 --batch-ms 7 --body-timeout 8 --timeout 9 --linger 10 --drain 11 --trusted k.pem --allow-load "
        "--no-access-log"
    )
    limits = Limits(body_bytes=5, batch=6, workers=3, queue=4, body_s=8, request_s=9, linger_s=10, drain_s=11)
    assert told(monkeypatch, *text.split())[0] == Settings(
        Path("folder/digits.zip"), "n", host="::1", port=1, start="small", providers=("P",), session_threads=2,
        batch_ms=7, trusted=Path("k.pem"), allow_load=True, access_log=False, limits=limits,
    )  # fmt: skip


def test_an_objective_chooses_the_latency_policy_and_a_name_any(monkeypatch: pytest.MonkeyPatch) -> None:
    latency = told(monkeypatch, "--p95", "7")[1]
    assert isinstance(latency, LatencyObjective) and latency.p95_ms == 7
    assert isinstance(told(monkeypatch, "--policy", "qps")[1], QueriesPerSecond)
