"""The switcher: answers, switches, failures, threads, memory."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnx_shift.runtime import (
    ClosedError,
    ModelSwitcher,
    Portfolio,
    RunError,
    SwitchError,
    builder,
    session,
    switcher,
)
from onnx_shift.runtime.content import Content
from onnx_shift.runtime.load import Load
from onnx_shift.runtime.portfolio import Signature
from tests.runtime.conftest import Answers, Make, answer


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("cache", [True, False])
def test_every_variant_answers_as_a_plain_session_does(
    make_switcher: Make, answers: Answers, images: np.ndarray, overlap: bool, cache: bool
) -> None:
    model = make_switcher(overlap=overlap, **({} if cache else {"cache": False}))
    assert model.active.name == "medium"  # the median
    for name in ("small", "large", "medium", "small"):
        record = model.switch(name)
        assert model.active.name == record.active == name
        np.testing.assert_array_equal(answer(model, images), answers[name])


def test_smaller_and_larger_go_to_the_neighbour_and_stop_at_the_ends(make_switcher: Make) -> None:
    model = make_switcher()
    visited = [model.switch(step).active for step in ("larger", "larger", "smaller", "smaller", "smaller")]
    assert visited == ["large", "large", "medium", "small", "small"]
    assert [(record.previous, record.active) for record in model.records] == [
        ("medium", "large"),
        ("large", "medium"),
        ("medium", "small"),
    ]
    unchanged = model.switch("small")
    assert not unchanged.changed and unchanged.total_ms == 0 and unchanged.bytes == 0


def test_threads_that_ask_keep_a_processor_while_a_variant_is_inflated(
    make_switcher: Make, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switcher, "_processors", lambda: 4)
    used: list[int] = []
    inflate = Content.inflate

    def spy(content: Content, threads: int, *, check: bool) -> Any:
        used.append(threads)
        return inflate(content, threads, check=check)

    monkeypatch.setattr(Content, "inflate", spy)
    model = make_switcher(cache=False)
    for name in ("small", "medium", "large"):
        model.switch(name)  # their graphs are optimised now
    used.clear()
    answer(model, images)
    model.switch("small")
    with ThreadPoolExecutor(8) as pool:
        gate = threading.Barrier(8)
        list(pool.map(lambda _: (gate.wait(), answer(model, images)), range(8)))
    model.switch("large")
    model.switch("small")
    assert used == [4, 1, 4]


def test_a_record_says_what_the_switch_cost(make_switcher: Make) -> None:
    model = make_switcher()
    first, again = model.switch("large"), (model.switch("medium"), model.switch("large"))[1]
    assert first.prepare_ms > again.prepare_ms
    assert min(again.inflate_ms, again.build_ms) > 0 and again.warmup_ms >= 0
    assert again.bytes > 64 * 64 * 9 * 4
    assert 0 <= again.stall_ms < again.total_ms
    held = make_switcher(overlap=False)
    record = held.switch("large")
    assert record.stall_ms >= record.inflate_ms + record.build_ms


def test_the_interface_of_an_inference_session(
    make_switcher: Make, model_paths: dict[str, Path], options: ort.SessionOptions, images: np.ndarray
) -> None:
    model = make_switcher()
    plain = ort.InferenceSession(model_paths["medium"], options, providers=["CPUExecutionProvider"])
    for ours, theirs in (
        (model.get_inputs(), plain.get_inputs()),
        (model.get_outputs(), plain.get_outputs()),
    ):
        assert [(s.name, s.type, s.shape) for s in ours] == [(s.name, s.type, s.shape) for s in theirs]
    assert model.get_modelmeta().graph_name == plain.get_modelmeta().graph_name
    assert model.get_providers() == plain.get_providers()
    assert model.get_provider_options() == plain.get_provider_options()
    assert model.get_session_options().intra_op_num_threads == 1
    value = ort.OrtValue.ortvalue_from_numpy(images)
    outputs = model.run_with_ort_values(["logits"], {"input": value})
    np.testing.assert_array_equal(outputs[0].numpy(), plain.run(["logits"], {"input": images})[0])
    assert model.session.get_outputs()[0].name == "logits"


@pytest.mark.parametrize(
    "feed, message",
    [
        ({}, "medium: Required inputs .*'input'.* are missing"),
        ({"wrong": np.zeros((1, 3, 8, 8), np.float32)}, "medium: .*input"),
        ({"input": np.zeros((1, 3, 8, 8))}, "medium: .*[Uu]nexpected input data type.*double"),
        ({"input": np.zeros((1, 4, 8, 8), np.float32)}, "medium: .*Got: 4 Expected: 3"),
        ({"input": np.zeros((3, 8, 8), np.float32)}, "medium: .*[Ii]nvalid rank"),
        ({"input": None}, "medium: "),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(
    make_switcher: Make, feed: dict[str, Any], message: str, answers: Answers, images: np.ndarray
) -> None:
    model = make_switcher()
    with pytest.raises(RunError, match=message):
        model.run(None, feed)
    with pytest.raises(RunError, match="nonesuch"):
        model.run(["nonesuch"], {"input": images})
    np.testing.assert_array_equal(answer(model, images), answers["medium"])


def test_a_switcher_shows_what_serves(make_switcher: Make) -> None:
    model = make_switcher()
    assert repr(model) == "<ModelSwitcher serving medium of Portfolio(small, medium, large)>"
    model.close()
    assert repr(model) == "<ModelSwitcher closed of Portfolio(small, medium, large)>"


@pytest.mark.parametrize("error", [MemoryError("none left"), RuntimeError("bad allocation"), OSError("io")])
@pytest.mark.parametrize("overlap", [True, False])
def test_a_failed_switch_leaves_the_old_variant_serving(
    make_switcher: Make,
    monkeypatch: pytest.MonkeyPatch,
    answers: Answers,
    images: np.ndarray,
    error: Exception,
    overlap: bool,
) -> None:
    model = make_switcher(overlap=overlap)
    build = builder.build_optimised_session
    calls = []

    def fail_once(*arguments: Any, prepack: bool) -> ort.InferenceSession:
        calls.append(arguments)
        if len(calls) == 1:
            raise error
        return build(*arguments, prepack=prepack)

    model.switch("large"), model.switch("medium")
    monkeypatch.setattr(builder, "build_optimised_session", fail_once)
    with pytest.raises(SwitchError, match=f"large: cannot be made ready .{error}"):
        model.switch("large")
    assert model.active.name == "medium" and len(model.records) == 2
    np.testing.assert_array_equal(answer(model, images), answers["medium"])
    model.switch("large")
    np.testing.assert_array_equal(answer(model, images), answers["large"])


def test_where_even_going_back_fails_callers_are_told_and_a_later_switch_heals(
    make_switcher: Make, monkeypatch: pytest.MonkeyPatch, answers: Answers, images: np.ndarray
) -> None:
    model = make_switcher(overlap=False)

    def fail(*_: Any, prepack: bool) -> None:
        raise MemoryError("none left")

    with monkeypatch.context() as broken:
        broken.setattr(builder, "build_optimised_session", fail)
        with pytest.raises(SwitchError, match=r"large: .*going back failed too: medium: .*none left"):
            model.switch("large")
        with pytest.raises(SwitchError, match="going back failed too"):
            answer(model, images)
    model.switch("medium")
    np.testing.assert_array_equal(answer(model, images), answers["medium"])


def test_requests_from_many_threads_while_switching(make_switcher: Make, answers: Answers, images: np.ndarray) -> None:
    model = make_switcher()
    stop = threading.Event()
    inputs = [images + np.float32(index) for index in range(4)]
    wanted = []
    for name in answers:
        model.switch(name)
        wanted.append([answer(model, one) for one in inputs])

    def serve(index: int) -> int:
        count = 0
        while not stop.is_set():
            got = answer(model, inputs[index])
            assert any(np.array_equal(got, want[index]) for want in wanted)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        serving = [pool.submit(serve, index) for index in range(4)]
        for step in range(60):
            model.switch(("small", "large", "medium")[step % 3])
        stop.set()
        assert min(future.result() for future in serving) > 0
    assert len(model.records) >= 60


@pytest.mark.parametrize("overlap", [True, False])
def test_a_request_inside_finishes_on_the_session_it_began_with(
    make_switcher: Make, answers: Answers, images: np.ndarray, overlap: bool
) -> None:
    model = make_switcher(overlap=overlap)
    model.switch("large"), model.switch("medium")
    began, go_on = threading.Event(), threading.Event()
    real = model.session

    class Slow:
        def run(self, *arguments: Any) -> Any:
            began.set()
            assert go_on.wait(30)
            return real.run(*arguments)

    model._leases.serving.session = Slow()
    with ThreadPoolExecutor(2) as pool:
        inside = pool.submit(answer, model, images)
        assert began.wait(30)
        switching = pool.submit(model.switch, "large")
        if overlap:
            assert switching.result(30).active == "large"
            np.testing.assert_array_equal(answer(model, images), answers["large"])
        else:
            time.sleep(0.05)
            assert not switching.done()  # the old one is not released under the request
        go_on.set()
        np.testing.assert_array_equal(inside.result(30), answers["medium"])
        assert switching.result(30).active == "large"


def test_the_old_session_and_its_memory_go(make_switcher: Make) -> None:
    model = make_switcher()
    old = weakref.ref(model.session)
    assert old() is not None
    model.switch("large")
    assert old() is None


def test_a_held_session_keeps_its_memory(make_switcher: Make, answers: Answers, images: np.ndarray) -> None:
    model = make_switcher()
    held = model.session
    model.switch("large")
    for _ in range(5):
        model.switch("smaller"), model.switch("larger")
    model.close()
    np.testing.assert_array_equal(held.run(None, {"input": images})[0], answers["medium"])


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
import onnxruntime as ort
from onnx_shift.runtime import ModelSwitcher
options = ort.SessionOptions()
options.intra_op_num_threads = 1
model = ModelSwitcher(sys.argv[1], options, ["CPUExecutionProvider"], cache=False, overlap=False)
feed = {"input": np.zeros((1, 3, 8, 8), np.float32)}
signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell that runs this may ignore it
begin, stop = threading.Event(), threading.Event()
def interrupt():
    begin.wait()  # starting this thread may take longer than an interrupt
    while not stop.wait(0.002):
        os.kill(os.getpid(), signal.SIGINT)
count = 0
threading.Thread(target=interrupt, daemon=True).start()
while count < 1500:
    try:
        begin.set()
        while True:
            model.run(None, feed)
    except KeyboardInterrupt:
        count += 1
while not stop.is_set():
    try:
        stop.set()
        time.sleep(0.05)
    except KeyboardInterrupt:
        pass
model.switch("larger")  # in place: it waits until nobody is inside
model.run(None, feed)
print("alive", model.active.name)
os._exit(0)
"""


def test_interrupted_requests_leave(portfolio_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, portfolio_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout == "alive large\n", done.stderr


def test_a_signal_handler_may_close_or_switch_beside(make_switcher: Make, images: np.ndarray) -> None:
    model = make_switcher()
    calls = iter([lambda: model.switch("larger"), lambda: model.switch("smaller"), model.close])
    before = signal.signal(signal.SIGALRM, lambda *_: next(calls, lambda: None)())
    try:
        with pytest.raises(ClosedError):
            for count in range(1_000_000):
                if count % 20 == 0:
                    signal.setitimer(signal.ITIMER_REAL, 1e-4)
                model.run(None, {"input": images})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_switching_in_place_from_within_a_request_is_refused(make_switcher: Make, images: np.ndarray) -> None:
    model = make_switcher(overlap=False)
    with (
        model._leases.lease(),
        pytest.raises(SwitchError, match="from within a request would wait for that request"),
    ):
        model.switch("larger")
    assert model.active.name == "medium"
    assert model.switch("larger").active == "large"


def test_closing_is_final_and_may_be_repeated(make_switcher: Make, images: np.ndarray) -> None:
    with make_switcher() as model:
        answer(model, images)
    model.close()
    for call in (lambda: answer(model, images), lambda: model.switch("large"), model.get_providers):
        with pytest.raises(ClosedError, match="the switcher is closed"):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told(make_switcher: Make, images: np.ndarray) -> None:
    model = make_switcher()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            try:
                answer(model, images)
            except ClosedError as error:
                os.write(writer, str(error).encode())
            model.close()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    assert message == "the switcher belongs to the process that made it: make another in a forked child"
    assert answer(model, images).shape == (2, 5)


def test_an_interrupted_switch_in_place_leaves_the_old_variant_serving(
    make_switcher: Make, monkeypatch: pytest.MonkeyPatch, answers: Answers, images: np.ndarray
) -> None:
    model = make_switcher(overlap=False)
    ready = ModelSwitcher._ready

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(ModelSwitcher, "_ready", ready)
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelSwitcher, "_ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.switch("large")
    assert model.active.name == "medium"
    np.testing.assert_array_equal(answer(model, images), answers["medium"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda portfolio: portfolio.inputs[:0], "large: .*its inputs are input, not those"),
        (
            lambda portfolio: [Signature("input", "tensor(double)", ["N", 3, 8, 8])],
            r"large: .*input is a tensor\(float\), not the tensor\(double\) of the manifest",
        ),
    ],
)
def test_a_variant_of_another_signature_is_not_taken_into_service(
    make_switcher: Make, portfolio: Portfolio, images: np.ndarray, change: Any, message: str
) -> None:
    model = make_switcher(portfolio)
    portfolio.inputs = tuple(change(portfolio))
    with pytest.raises(SwitchError, match=message):
        model.switch("large")
    assert model.active.name == "medium" and answer(model, images).shape == (2, 5)


def test_an_unknown_start_is_named(make_switcher: Make) -> None:
    with pytest.raises(SwitchError, match="no variant 'smaller'; there are: small, medium, large"):
        make_switcher(start="smaller")


def test_files_that_options_ask_for_are_not_written_by_copies(
    portfolio_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ort.SessionOptions()
    given.optimized_model_filepath, given.enable_profiling = "mine.onnx", True
    source = session.OptionsSource(given)
    assert source.fresh().enable_profiling and source.fresh().optimized_model_filepath == ""
    assert given.enable_profiling and given.optimized_model_filepath == "mine.onnx"
    assert list(tmp_path.iterdir()) == []
    ModelSwitcher(portfolio_path, given, ["CPUExecutionProvider"], cache=False).close()
    assert not (tmp_path / "mine.onnx").exists()
    assert len(list(tmp_path.glob("onnxruntime_profile*"))) <= 1  # of the session that serves


def test_a_dropped_switcher_with_a_policy_is_collected(make_switcher: Make, portfolio_path: Path) -> None:
    model = ModelSwitcher(portfolio_path, providers=["CPUExecutionProvider"], cache=False, policy=Flips())
    thread, dropped = model._controller._thread, weakref.ref(model)
    del model
    gc.collect()
    thread.join(30)
    assert dropped() is None and not thread.is_alive()


class Flips:
    interval_s = 0.001

    def decide(self, load: Load) -> str:
        return "small" if load.active.name != "small" else "large"


LEFT_OPEN = """
import sys, time
from onnx_shift.runtime import ModelSwitcher
class Flips:
    interval_s = 0.001
    def decide(self, load):
        return "small" if load.active.name != "small" else "large"
model = ModelSwitcher(sys.argv[1], providers=["CPUExecutionProvider"], cache=False, policy=Flips())
while len(model.records) < 20:
    time.sleep(0.001)
"""


def test_an_unclosed_switcher_does_not_abort_the_interpreter(portfolio_path: Path) -> None:
    for _ in range(5):
        subprocess.run([sys.executable, "-c", LEFT_OPEN, str(portfolio_path)], check=True, timeout=120)


def test_a_portfolio_opens_by_path_or_bytes_too(make_switcher: Make, portfolio_path: Path, images: np.ndarray) -> None:
    for source in (str(portfolio_path), portfolio_path.read_bytes(), Portfolio.open(portfolio_path)):
        assert answer(make_switcher(source), images).shape == (2, 5)


def test_an_explicit_start(make_switcher: Make) -> None:
    assert make_switcher(start="large").active.name == "large"


def test_the_arrays_behind_a_session_outlive_it(make_switcher: Make) -> None:
    memory = make_switcher().session.onnx_shift_memory
    assert {type(item) for item in memory} == {ort.OrtValue, np.ndarray}
    assert session.EXTERNAL_FILE.is_file()
