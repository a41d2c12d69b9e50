"""What Prometheus is told, read by a real one."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnx_shift.serving.metrics import resident_bytes
from onnx_shift.serving.service import Service
from tests.serving.conftest import NAME, question, serving, wait_until


def test_every_name_begins_alike_and_none_comes_twice(make_service: Callable[..., Service]) -> None:
    lines = make_service().metrics.text().decode().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) > 15 and {name.startswith("onnx_shift_") for name in names} == {True}


def test_the_memory_of_this_process_is_stated() -> None:
    assert 10e6 < resident_bytes() < 100e9


def test_the_dashboard_asks_for_metrics_that_there_are(make_service: Callable[..., Service]) -> None:
    import re

    text = make_service().metrics.text().decode()
    dashboard = (Path(__file__).parents[2] / "examples" / "grafana-dashboard.json").read_text()
    asked = set(re.findall(r"onnx_shift_\w+", dashboard))
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    endings = ("", "_total", "_bucket", "_sum", "_count")
    assert asked and {name for name in asked if not any(name.removesuffix(end) in known for end in endings)} == set()


def test_a_real_prometheus_scrapes_it(portfolio_path: Path, tmp_path: Path, rows: np.ndarray) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    with serving(str(portfolio_path), "--no-access-log") as server:
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {"job_name": "served", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]},
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # YAML holds JSON
        port = server.port + 1 if server.port < 65535 else server.port - 1
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def value(query: str) -> str | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5) as reply:
                    found = json.load(reply)["data"]["result"]
            except OSError:
                return None
            return found[0]["value"][1] if found else None

        try:
            for _ in range(3):
                server.ask("POST", f"/v2/models/{NAME}/infer", json.dumps(question(rows)).encode())
            wait_until(lambda: value("onnx_shift_http_requests_total") == "3", 60)
            assert value("onnx_shift_active_variant%7Bvariant=%22medium%22%7D") == "1"
            assert value("onnx_shift_http_request_seconds_count") == "3"
        finally:
            prometheus.terminate()
            prometheus.wait(30)
