import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_shift.runtime import ModelSwitcher
from onnx_shift.runtime.metrics import observe_opentelemetry, prometheus_collector

Make = Callable[..., ModelSwitcher]


def test_prometheus_is_shown_the_switcher(make_switcher: Make, images: np.ndarray) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    model = make_switcher()
    registry = prometheus.CollectorRegistry()
    registry.register(prometheus_collector(model, {"model": "digits"}))
    model.run(None, {"input": images})
    model.switch("large")
    text = prometheus.generate_latest(registry).decode()
    for line in (
        'onnx_shift_requests_total{model="digits"} 1.0',
        'onnx_shift_switches_total{model="digits"} 1.0',
        'onnx_shift_active_variant{model="digits",variant="large"} 1.0',
        'onnx_shift_active_variant{model="digits",variant="medium"} 0.0',
        f'onnx_shift_active_weight_bytes{{model="digits"}} {float(model.active.weight_bytes)}',
    ):
        assert line in text.splitlines()
    taken = registry.get_sample_value("onnx_shift_switch_seconds_total", {"model": "digits"})
    assert taken == pytest.approx(model.records[0].total_ms / 1e3)


def test_opentelemetry_observes_the_switcher(make_switcher: Make, images: np.ndarray) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    model, reader = make_switcher(), InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe_opentelemetry(model, provider.get_meter("test"), {"model": "digits"})
    model.run(None, {"input": images})
    model.switch("large")
    found: dict[str, Any] = {}
    for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            assert point.attributes["model"] == "digits"
            found[metric.name, point.attributes.get("variant")] = point.value
    provider.shutdown()
    assert found["onnx_shift.requests", None] == found["onnx_shift.switches", None] == 1
    assert found["onnx_shift.active_variant", "large"] == 1 and found["onnx_shift.active_variant", "small"] == 0


def test_a_dropped_switcher_is_shown_no_more(portfolio_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    model = ModelSwitcher(portfolio_path, providers=["CPUExecutionProvider"], cache=False)
    collector = prometheus_collector(model)
    assert len(list(collector.collect())) > 10
    del model
    gc.collect()
    assert list(collector.collect()) == []


def test_neither_is_imported_unless_asked_for() -> None:
    code = "import sys, onnx_shift.runtime.metrics; print({'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
