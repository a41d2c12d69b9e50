"""Replicas of Ray Serve: their updates without Ray, and a cluster of two nodes in this machine."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from onnx_shift.serving.ray import Replica, application
from tests.serving.conftest import NAME, WIDTHS, asking, call, question, wait_until, write_portfolio

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
def cluster() -> Iterator[str]:
    """Run two nodes, and yield the address of the first.

    Ray gives a node 30 seconds to start, which no option changes. The dashboard, ten processes of a hundred megabytes,
    took most of them on a busy machine; nothing here needs it.
    """
    os.environ |= {
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
        "RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0",  # both replicas are to be asked
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray import serve
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    try:
        nodes.add_node(**node)
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes.address
        serve.shutdown()
    finally:
        ray.shutdown()
        nodes.shutdown()


def deploy(config: dict[str, Any], file: Path, address: str) -> None:
    """Give Ray the configuration, and wait until every replica has it."""
    from ray import serve

    file.write_text(json.dumps(config))  # YAML holds JSON
    command = [Path(sys.executable).parent / "serve", "run", "--non-blocking", "--address", address, file]
    subprocess.run(command, check=True, capture_output=True)
    until_s = time.monotonic() + 240
    while True:
        (status,) = serve.status().applications.values()
        states = [(each.status, each.replica_states) for each in status.deployments.values()]
        if status.status == "RUNNING" and states == [("HEALTHY", {"RUNNING": 2})]:
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

    with cluster() as address:
        deploy(config, tmp_path / "serve.json", address)
        callers = Callers(rows, wanted)
        wait_until(lambda: not any(callers.once() for _ in range(20)), 60)  # both nodes' proxies have heard of it
        with asking(callers.ask):
            for portfolio, version, enough in (("new.zip", 2, 5000), ("bad.zip", 3, 1000)):
                count = len(callers.seen)
                deployment["user_config"] = {"portfolio": str(tmp_path / portfolio), "version": version}
                deploy(config, tmp_path / "serve.json", address)
                callers.wait_for(count + enough)
        is_new = [variant.endswith("-new") for _, variant in callers.seen]
        first, last = is_new.index(True), len(is_new) - is_new[::-1].index(False)
        print(f"updated within {callers.seen[last][0] - callers.seen[first][0]:.2f} s, {len(is_new)} requests")
        assert callers.failed == [] and len(is_new) - last > 1000
        callers = Callers(rows, wanted)
        with asking(callers.ask):
            callers.wait_for(500)
            replicas = [each for each in psutil.Process().children(recursive=True) if "ServeReplica" in each.name()]
            assert len(replicas) == 2
            replicas[0].kill()
            callers.wait_for(3000)
        print(f"a replica killed: {len(callers.failed)} of {len(callers.seen)} had to be asked again")
        assert len(callers.failed) <= 8 and callers.lost == []  # at most what was inside


class Callers:
    """Eight connections that ask, check each answer, and ask once more where there is none."""

    def __init__(self, rows: np.ndarray, wanted: dict[str, np.ndarray]) -> None:
        self.seen: list[tuple[float, str]] = []  # when an answer came, and the variant that gave it
        self.failed: list[str] = []
        self.lost: list[str] = []  # also the second time
        self._body, self._wanted = json.dumps(question(rows)), wanted

    def wait_for(self, count: int) -> None:
        """Return when so many requests are answered."""
        wait_until(lambda: len(self.seen) >= count, 240)

    def ask(self, stop: threading.Event) -> None:
        while not stop.is_set():
            error = self.once()
            if error:
                self.failed.append(error)
                self.lost += [again] if (again := self.once()) else []

    def once(self) -> str:
        """Return what is wrong with one answer, or nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", 8123, timeout=60)
        try:
            connection.request("POST", f"/v2/models/{NAME}/infer", self._body)
            reply = connection.getresponse()
            text, variant = reply.read().decode(), reply.getheader("onnx-shift-variant", "")
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        self.seen.append((time.monotonic(), variant))
        if reply.status != 200:
            return text
        found = json.loads(text)["outputs"][0]["data"]
        return "" if np.allclose(found, self._wanted[variant].ravel(), rtol=1e-4) else f"wrong answer of {variant}"
