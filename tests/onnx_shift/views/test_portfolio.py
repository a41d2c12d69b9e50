"""What `pack` shows of a portfolio."""

import json
from pathlib import Path

from typer.testing import CliRunner

from onnx_shift.cli import app
from tests.onnx_shift.models import free_axes, refusal


def test_pack_tells_the_search_efficiency_and_the_profile_at_fault(models: list[Path], tmp_path: Path) -> None:
    profile, portfolio = tmp_path / "profile.json", tmp_path / "p.zip"
    entry = {"latency_ms": {"1": {"p50": 1.0}}, "file_bytes": 1000, "accuracy": 0.9, "ratio": 1}
    profile.write_text(json.dumps({"variants": {"dense": entry, "small": entry | {"accuracy": 0.5}}}))
    done = CliRunner().invoke(app, ["pack", *map(str, models), "-o", str(portfolio), "--profile", str(profile)])
    assert "search efficiency 50%: 1 of 2 variants are Pareto-optimal in accuracy, latency, size" in done.output
    options = ["--profile", str(profile), "--metric", "size", "--json"]
    done = CliRunner().invoke(app, ["pack", str(models[0]), "-o", str(portfolio), *options])
    found = json.loads(done.stdout)
    assert (found["efficiency"], found["metrics"], found["dropped"]) == (1.0, ["size"], {})
    free = free_axes(tmp_path / "level-01.onnx")
    assert refusal("pack", free, "-o", portfolio, "--profile", profile) == (
        f"{profile}: does not list level-01; profile all models in one run"
    )
