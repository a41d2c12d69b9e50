"""Replicas of Ray Serve: their updates without Ray, and a cluster of two nodes in this machine."""

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_shift.serving.ray import Replica, application
from tests.serving.conftest import NAME, WIDTHS, call, question, write_portfolio

ROOT = Path(__file__).parents[2]


def test_a_replica_takes_a_new_portfolio_and_never_raises(
    portfolio_path: Path, tmp_path: Path, rows: np.ndarray
) -> None:
    replica = Replica(str(portfolio_path), p95_ms=50, limits={"batch": 9}, start="small")
    body = json.dumps(question(rows)).encode()

    def variant() -> str:
        return call(application(), "POST", f"/v2/models/{NAME}/infer", body).variant

    assert variant() in WIDTHS
    write_portfolio(tmp_path / "new.zip", {"only": 5})
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    for config, wanted in (
        ({"portfolio": str(tmp_path / "new.zip")}, "only"),
        ({"portfolio": str(tmp_path / "bad.zip")}, "only"),
        ({"portfolio": 7}, "only"),
        ({}, "only"),
    ):
        asyncio.run(replica.reconfigure(config))
        assert variant() == wanted
    assert b'onnx_shift_loads_total{result="refused"} 1.0' in call(application(), "GET", "/metrics").body
    replica.__del__()


@contextmanager
def cluster() -> Iterator[None]:
    """Run two nodes, with the interface that `serve deploy` talks to."""
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray import serve
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True})
    nodes.add_node(num_cpus=2)
    ray.init(address=nodes.address, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": 8123})
    try:
        yield
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()


def deploy(config: dict[str, Any], file: Path) -> None:
    """Give Ray the configuration, and wait until every replica has it."""
    from ray import serve

    file.write_text(json.dumps(config))  # YAML holds JSON
    subprocess.run([Path(sys.executable).parent / "serve", "deploy", file], check=True, capture_output=True)
    until_s = time.monotonic() + 120
    while True:
        (status,) = serve.status().applications.values()
        healthy = all(each.status == "HEALTHY" for each in status.deployments.values())
        if status.status == "RUNNING" and healthy:
            return
        assert time.monotonic() < until_s, status
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_replicas_on_two_nodes_are_updated_in_place_and_lose_nothing(
    portfolio_path: Path, tmp_path: Path, rows: np.ndarray, answers: dict[str, np.ndarray]
) -> None:
    yaml = pytest.importorskip("yaml")
    write_portfolio(tmp_path / "new.zip", {f"{name}-new": width for name, width in WIDTHS.items()})
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    wanted = {**answers, **{f"{name}-new": value for name, value in answers.items()}}
    config = yaml.safe_load((ROOT / "examples" / "serve.yaml").read_text())
    (served,) = config["applications"]
    (deployment,) = served["deployments"]
    config["http_options"]["port"] = 8123
    served["args"].update(portfolio=str(portfolio_path), name=NAME)
    del deployment["autoscaling_config"]
    deployment.update(num_replicas=2, max_replicas_per_node=1, user_config={"portfolio": str(portfolio_path)})
    deployment["ray_actor_options"]["num_cpus"] = 0.5
    seen: list[str] = []
    failed: list[str] = []

    def ask(stop: Callable[[], bool]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", 8123, timeout=30)
        while not stop():
            connection.request("POST", f"/v2/models/{NAME}/infer", json.dumps(question(rows)))
            reply = connection.getresponse()
            text, variant = reply.read().decode(), reply.getheader("onnx-shift-variant", "")
            if reply.status != 200 or not np.allclose(
                json.loads(text)["outputs"][0]["data"], wanted[variant].ravel(), rtol=1e-4
            ):
                failed.append(text)
            seen.append(variant)
        connection.close()

    with cluster():
        deploy(config, tmp_path / "serve.json")
        for portfolio, version in (("new.zip", 2), ("bad.zip", 3)):
            stop = threading.Event()
            threads = [threading.Thread(target=ask, args=(stop.is_set,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            deployment["user_config"] = {"portfolio": str(tmp_path / portfolio), "version": version}
            deploy(config, tmp_path / "serve.json")
            count = len(seen)
            while len(seen) < count + 1000:
                time.sleep(0.05)
            stop.set()
            for thread in threads:
                thread.join()
            assert failed == [] and set(seen[count + 100 :]) <= {f"{name}-new" for name in WIDTHS}
