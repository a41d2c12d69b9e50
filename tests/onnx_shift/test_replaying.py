"""The command `replay`."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from tests.onnx_shift.models import refusal


def test_a_policy_of_the_working_folder_serves_and_a_refused_replay_leaves_no_folder(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "night_policy.py").write_text(
        "class NightShift:\n    interval_s = 0.1\n    def decide(self, load):\n        return 'smaller'\n"
        "def night_shift(objective_ms):\n    return NightShift()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    assert CliRunner().invoke(app, ["pack", *map(str, models), "-o", "p.zip"]).exit_code == 0
    replay = ["replay", "p.zip", "--duration", "1", "--trace", "step"]
    done = CliRunner().invoke(app, [*replay, "--policy", "night_policy:night_shift", "--json"])
    assert set(json.loads(done.stdout)["runs"]) >= {"policy", "smallest", "largest"}
    assert "--policy night_policy:NightShift: makes no policy (TypeError" in refusal(
        *replay, "--policy", "night_policy:NightShift", "-o", "out"
    )
    assert "objective of 0 ms" in refusal(*replay, "--objective", "0", "-o", "out")
    assert not (tmp_path / "out").exists()


def test_random_loads_are_replayed_and_one_variant_has_nothing_to_switch(models: list[Path], tmp_path: Path) -> None:
    two, one = tmp_path / "two.zip", tmp_path / "one.zip"
    for path, some in ((two, models), (one, models[:1])):
        assert CliRunner().invoke(app, ["pack", *map(str, some), "-o", str(path)]).exit_code == 0
    replay = ["replay", two, "--duration", "1", "--trace"]
    done = CliRunner().invoke(app, [*map(str, replay), "gamma", "--cv", "4", "--load", "0.1", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["trace"].startswith("gamma")
    assert refusal(*replay, "day", "--cv", "4") == "--cv 4: belongs to --trace gamma and bursty, not day"
    assert refusal(*replay, "day", "--load", "0.1").startswith("--load 0.1: belongs to --trace poisson")
    assert refusal("replay", one) == f"{one}: holds one variant, so there is nothing to switch; pack several"
