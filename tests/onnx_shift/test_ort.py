"""Facts about onnxruntime that every part relies on."""

import onnxruntime
import pytest

from onnx_shift.ort import BUILD_ERRORS, CPU, ORT_ERRORS


def test_the_cpu_provider_is_there_by_its_name() -> None:
    assert CPU in onnxruntime.get_available_providers()


def test_what_onnxruntime_raises_is_caught() -> None:
    assert len(ORT_ERRORS) > 5
    with pytest.raises(BUILD_ERRORS, match=r"protobuf|parse"):
        onnxruntime.InferenceSession(b"no model", providers=[CPU])
