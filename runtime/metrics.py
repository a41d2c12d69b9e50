"""A switcher's counts for Prometheus (extra `metrics`) and OpenTelemetry (extra `otel`), read when asked for."""

import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import Metric
    from prometheus_client.registry import Collector

    from onnx_shift.runtime.switcher import ModelSwitcher


class _Measure(NamedTuple):
    key: str  # in `ModelSwitcher.stats`
    name: str
    unit: str
    description: str
    grows: bool = True
    scale: float = 1.0


_MEASURES = (
    _Measure("requests", "requests", "", "Requests answered or failed"),
    _Measure("failed_requests", "failed_requests", "", "Requests that the model refused"),
    _Measure("request_ms", "request", "seconds", "Time spent in requests", scale=1e-3),
    _Measure("switches", "switches", "", "Switches to another variant"),
    _Measure("failed_switches", "failed_switches", "", "Switches that failed; the variant before served on"),
    _Measure("updates", "updates", "", "Portfolios that took over"),
    _Measure("refused_updates", "refused_updates", "", "Portfolios refused; the one before served on"),
    _Measure("switch_ms", "switch", "seconds", "Time spent making variants ready", scale=1e-3),
    _Measure("stall_ms", "stall", "seconds", "Time that callers were held up by switches", scale=1e-3),
    _Measure("inflated_bytes", "inflated", "bytes", "Bytes inflated for switches"),
    _Measure("sure_images", "sure_images", "", "Images of a cascade that the active variant answered"),
    _Measure("unsure_images", "unsure_images", "", "Images of a cascade that the larger variant was asked for"),
    _Measure("running", "running_requests", "", "Requests inside now", grows=False),
    _Measure("variants", "variants", "", "Variants of the portfolio", grows=False),
    _Measure("place", "active_place", "", "Place of the active variant, the smallest 0", grows=False),
    _Measure("weight_bytes", "active_weight", "bytes", "Weights of the active variant", grows=False),
    _Measure("portfolio_bytes", "portfolio", "bytes", "What the portfolio holds in memory, deflated", grows=False),
)
_ACTIVE = "1 for the variant that serves, 0 for the others"


def prometheus_collector(switcher: "ModelSwitcher", labels: Mapping[str, str] | None = None) -> "Collector":
    """Return a collector for `prometheus_client.REGISTRY.register`: metrics named onnx_shift_…, each with `labels`.

    It does not keep the switcher: one that was dropped has no metrics any more.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    held = weakref.ref(switcher)
    names, values = list(labels or {}), list((labels or {}).values())

    class SwitcherCollector(Collector):
        def collect(self) -> Iterable["Metric"]:
            model = held()
            if model is None:
                return
            stats = model.stats()
            for measure in _MEASURES:
                kind = CounterMetricFamily if measure.grows else GaugeMetricFamily
                family = kind(f"onnx_shift_{measure.name}", measure.description, labels=names, unit=measure.unit)
                family.add_metric(values, stats[measure.key] * measure.scale)
                yield family
            portfolio, active = model.current
            family = GaugeMetricFamily("onnx_shift_active_variant", _ACTIVE, labels=[*names, "variant"])
            for variant in portfolio:
                family.add_metric([*values, variant.name], float(variant is active))
            yield family

    return SwitcherCollector()


def observe_opentelemetry(
    switcher: "ModelSwitcher", meter: "Meter | None" = None, attributes: Mapping[str, str] | None = None
) -> None:
    """Create observable instruments named onnx_shift.… in `meter`, by default the global provider's, each observation
    with `attributes`.

    They do not keep the switcher: one that was dropped is observed no more.
    """
    from opentelemetry.metrics import Observation, get_meter

    meter = meter or get_meter("onnx_shift")
    held, given = weakref.ref(switcher), dict(attributes or {})

    def observe(measure: _Measure) -> None:
        def read(options: "CallbackOptions") -> Iterable["Observation"]:
            model = held()
            return [] if model is None else [Observation(model.stats()[measure.key] * measure.scale, given)]

        create = meter.create_observable_counter if measure.grows else meter.create_observable_gauge
        unit = {"seconds": "s", "bytes": "By"}.get(measure.unit, "1")
        create(f"onnx_shift.{measure.name}", [read], unit, measure.description)

    def read_active(options: "CallbackOptions") -> Iterable["Observation"]:
        model = held()
        if model is None:
            return []
        portfolio, active = model.current
        return [Observation(int(variant is active), {**given, "variant": variant.name}) for variant in portfolio]

    for measure in _MEASURES:
        observe(measure)
    meter.create_observable_gauge("onnx_shift.active_variant", [read_active], "1", _ACTIVE)
