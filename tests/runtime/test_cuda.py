"""The switcher on an NVIDIA GPU, where the installed onnxruntime has one; skipped elsewhere."""

import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import ModelSwitcher, ProviderError
from onnx_shift.runtime.session import choose_providers

CUDA = "CUDAExecutionProvider"
EXACT = [(CUDA, {"use_tf32": 0})]  # sums of float32 as on the CPU; by default convolutions round to 10 bits


def _starts() -> bool:
    try:
        choose_providers([CUDA])
    except ProviderError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _starts(), reason="no CUDA execution provider that starts here")

Make = Callable[..., ModelSwitcher]


def test_it_is_taken_by_default_and_answers_as_the_cpu_does(
    make_switcher: Make, images: np.ndarray, answers: dict[str, np.ndarray]
) -> None:
    assert make_switcher(providers=None).get_providers()[0] == CUDA
    model = make_switcher(providers=EXACT)
    assert model.get_provider_options()[CUDA]["use_tf32"] == "0"
    for name, expected in answers.items():
        model.switch(name)
        np.testing.assert_allclose(model.run(None, {"input": images})[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_a_second_start_takes_the_optimised_graphs_of_the_first(
    make_switcher: Make, images: np.ndarray, answers: dict[str, np.ndarray], tmp_path: Path, cached: bool
) -> None:
    folder = tmp_path / "cache" if cached else False
    for start in range(2):
        model = make_switcher(providers=EXACT, cache=folder)
        record = model.switch("large")
        assert (record.prepare_ms < 0.5) is (cached and start == 1)
        np.testing.assert_allclose(model.run(None, {"input": images})[0], answers["large"], rtol=1e-4, atol=1e-4)


def test_switching_beside_requests_gives_each_the_answer_of_one_variant(
    make_switcher: Make, images: np.ndarray, answers: dict[str, np.ndarray]
) -> None:
    model = make_switcher(providers=EXACT)
    stop, wrong, count = threading.Event(), [], [0, 0]

    def ask(index: int) -> None:
        while not stop.is_set():
            found = model.run(None, {"input": images[index : index + 1]})[0]
            count[index] += 1
            if not any(np.allclose(found[0], each[index], rtol=1e-4, atol=1e-4) for each in answers.values()):
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for _, name in zip(range(30), cycle(answers), strict=False):
        model.switch(name)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(count) > 0


def test_a_binding_of_outputs_on_the_device_outlives_a_switch(
    make_switcher: Make, images: np.ndarray, answers: dict[str, np.ndarray]
) -> None:
    model = make_switcher(providers=EXACT, start="small")
    binding = model.io_binding()
    binding.bind_ortvalue_input("input", ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
    binding.bind_output("logits", "cuda")
    for name in ("small", "large"):
        model.switch(name)
        model.run_with_iobinding(binding)
        (output,) = binding.get_outputs()
        assert output.device_name() == "cuda"
        np.testing.assert_allclose(output.numpy(), answers[name], rtol=1e-4, atol=1e-4)


def test_in_place_the_old_session_is_gone_before_the_new_one_is_built(
    make_switcher: Make, images: np.ndarray, answers: dict[str, np.ndarray]
) -> None:
    model = make_switcher(providers=EXACT, overlap=False, start="small")
    record = model.switch("large")
    assert (record.previous, record.active) == ("small", "large")
    np.testing.assert_allclose(model.run(None, {"input": images})[0], answers["large"], rtol=1e-4, atol=1e-4)


def test_a_device_that_is_not_there_needs_a_named_fallback(make_switcher: Make) -> None:
    absent = (CUDA, {"device_id": 99})
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider: .*does not start here"):
        make_switcher(providers=[absent])
    assert make_switcher(providers=[absent, "CPUExecutionProvider"]).get_providers() == ["CPUExecutionProvider"]
