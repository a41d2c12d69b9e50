"""One line of JSON per request."""

import io
import json

from onnx_shift.serving.access_log import AccessLog


def test_a_line_names_who_asked_what_and_what_came() -> None:
    file = io.StringIO()
    scope = {"client": ("10.0.0.1", 5), "method": "POST", "path": '/a\n"b', "onnx_shift_variant": "small"}
    AccessLog(file).write(scope, 200, 0.0125)
    (line,) = file.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time_s") > 1.7e9
    assert found == {
        "client": "10.0.0.1", "method": "POST", "path": "/a\n\"b", "status": 200, "ms": 12.5, "variant": "small",
    }  # fmt: skip
