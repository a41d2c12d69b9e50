"""What pruning did, as plain values."""

import json

from tests.onnx_pruner.conftest import Exact, weight


def test_a_report_is_ready_for_json(exact: Exact) -> None:
    text = "g (float[N,3,4,4] x) => (float[N,4,4,4] y) { a = Conv(x, w)\n r = Relu(a)\n y = Conv(r, v) }"
    report = exact(text, {"w": weight(8, 3, 1, 1, dead=(2, 5)), "v": weight(4, 8, 1, 1)}).report
    stored = json.loads(json.dumps(report.to_dict()))
    assert [layer["after"] for layer in stored["layers"]] == [[6, 3, 1, 1], [4, 6, 1, 1]]
    assert (stored["channels_removed"], stored["parameters_before"], stored["parameters_after"]) == (2, 56, 42)
    assert stored["unchanged"] is False
