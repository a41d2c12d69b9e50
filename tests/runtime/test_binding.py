"""An IOBinding that survives switches."""

import numpy as np
import onnxruntime as ort

from tests.runtime.conftest import Answers, Make


def test_a_binding_survives_switches(make_switcher: Make, answers: Answers, images: np.ndarray) -> None:
    model = make_switcher()
    binding = model.io_binding()
    binding.bind_cpu_input("input", images)
    binding.bind_output("logits")
    for name in ("medium", "large", "small"):
        model.switch(name)
        model.run_with_iobinding(binding)
        np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], answers[name])
    binding.clear_binding_outputs()
    bound = np.zeros((2, 5), np.float32)
    binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(bound))
    model.switch("large")
    model.run_with_iobinding(binding)
    np.testing.assert_array_equal(bound, answers["large"])


def test_a_binding_of_the_active_session_is_taken_too(
    make_switcher: Make, answers: Answers, images: np.ndarray
) -> None:
    model = make_switcher()
    binding = model.session.io_binding()
    binding.bind_cpu_input("input", images)
    binding.bind_output("logits")
    model.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], answers["medium"])
