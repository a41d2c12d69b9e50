"""Load over time: built in, and from CSV files."""

from pathlib import Path

import numpy as np
import pytest

from onnx_shift.runtime.trace import SHAPES, RecordedTrace, Trace, TraceError, builtin_trace, random_trace, read_trace


@pytest.mark.parametrize("name", SHAPES)
def test_built_in_traces_go_beyond_what_the_largest_serves_and_rest(name: str) -> None:
    trace = builtin_trace(name, 50.0)
    assert trace.duration_s == pytest.approx(50.0) and len(trace.loads) == 100
    assert min(trace.loads) < 0.5 < 1 < max(trace.loads) < 1.5


def test_requests_come_as_often_as_the_load_says() -> None:
    trace = Trace("two", 100.0, (0.5, 2.0))
    arrived_s = trace.arrivals(10.0, np.random.default_rng(0))
    counts = np.histogram(arrived_s, (0, 100, 200))[0]
    assert counts == pytest.approx([500, 2000], rel=0.1)
    assert np.all(np.diff(arrived_s) >= 0)
    gaps = np.diff(arrived_s[arrived_s < 100])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # Poisson: gaps spread as far as their mean
    again = trace.arrivals(10.0, np.random.default_rng(0))
    np.testing.assert_array_equal(arrived_s, again)


def test_a_csv_in_requests_per_second_is_absolute(tmp_path: Path) -> None:
    path = tmp_path / "monday.csv"
    path.write_text("seconds,requests_per_second\n0,10\n5,20\n10,0\n")
    trace = read_trace(path)
    assert trace == Trace("monday", 5.0, (10.0, 20.0, 0.0), relative=False)
    assert trace.rates(1000.0).tolist() == [10.0, 20.0, 0.0]
    path.write_text("load,seconds\n0.5,0\n1,1\n")
    assert read_trace(path).rates(1000.0).tolist() == [500.0, 1000.0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "needs two rows or more of `seconds` and `load`"),
        ("seconds,load\n0,1\n", "needs two rows or more"),
        ("time,load\n0,1\n1,1\n", "needs two rows or more"),
        ("seconds,load\n0,1\n1,x\n", "line 3: load is 'x'"),
        ("seconds,load\n0,1\n1,-1\n", "line 3: load is '-1'"),
        ("seconds,load\n0,1\n1\n", "line 3: load is None"),
        ("seconds,load\n0,1\n1,nan\n", "line 3: load is 'nan'"),
        ("seconds,load\n0,1\n1,1\n3,1\n", "must rise by the same step"),
        ("seconds,load\n1,1\n0,1\n", "must rise by the same step"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "load.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=rf"load\.csv: .*{message}"):
        read_trace(path)


def test_a_mark_before_the_first_column_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("seconds,load\n0,1\n1,2\n", encoding="utf-8-sig")
    assert read_trace(tmp_path / "load.csv").loads == (1.0, 2.0)


def test_more_requests_than_can_be_served_are_refused() -> None:
    with pytest.raises(TraceError, match=r"flood: 1e\+15 requests would come, at most 10,000,000 can"):
        Trace("flood", 1.0, (1e15,), relative=False).arrivals(1.0, np.random.default_rng(0))


def test_unknown_traces_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        TraceError,
        match="waves: no load trace; there are ramp, step, burst, day, poisson, gamma, bursty, or a CSV file",
    ):
        builtin_trace("waves", 10.0)
    for seconds in (0, float("inf")):
        with pytest.raises(TraceError, match=f"cannot last {seconds} seconds"):
            builtin_trace("ramp", seconds)
    with pytest.raises(TraceError, match=r"absent\.csv: cannot be read"):
        read_trace(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match=r"binary\.csv: cannot be read"):
        read_trace(tmp_path / "binary.csv")


def test_clustered_requests_come_as_often_and_vary_as_much_as_asked() -> None:
    trace = random_trace("gamma", 400.0, load=0.5, cv=4.0)
    arrived_s = trace.arrivals(100.0, np.random.default_rng(3))
    gaps = np.diff(arrived_s)
    assert arrived_s.size == pytest.approx(20_000, rel=0.1) and arrived_s[-1] < 400.0
    assert gaps.std() / gaps.mean() == pytest.approx(4.0, rel=0.15)


def test_a_bursty_load_is_drawn_anew_every_half_second() -> None:
    trace = random_trace("bursty", 5_000.0, cv=2.0, seed=1)
    loads = np.array(trace.loads)
    assert trace.interval_s == 0.5 and loads.max() == 1.8
    drawn = np.random.default_rng(1).gamma(0.25, 2.0, 10_000)
    np.testing.assert_allclose(loads, np.minimum(drawn, 1.8))
    assert random_trace("bursty", 50.0, cv=2.0, seed=2) != random_trace("bursty", 50.0, cv=2.0, seed=3)


@pytest.mark.parametrize(
    "name, options", [("poisson", {"cv": 2.0}), ("gamma", {"cv": 99.0}), ("bursty", {"load": 0.0})]
)
def test_a_random_load_that_cannot_be_is_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(TraceError, match=f"^{name}: a load of .* with cv=.*: a load is above 0, cv from 0.1 to 16"):
        random_trace(name, 10.0, **options)


def write_invocations(path: Path, began_s: list[float]) -> Path:
    rows = [f"app,function,{second + 0.25},0.25" for second in began_s]
    path.write_text("\n".join(["app,func,end_timestamp,duration", *rows]) + "\n")
    return path


def test_invocations_are_served_when_they_began(tmp_path: Path) -> None:
    path = write_invocations(tmp_path / "functions.csv", [100.0, 101.5, 100.5, 131.0])
    trace = read_trace(path, duration_s=30.0)
    assert isinstance(trace, RecordedTrace) and trace.duration_s == pytest.approx(30.0)
    assert trace.arrivals(1e9, np.random.default_rng(0)).tolist() == [0.0, 0.5, 1.5]
    assert sum(trace.loads) * trace.interval_s == pytest.approx(3)


def test_invocations_are_thinned_to_the_load_and_never_stretched(tmp_path: Path) -> None:
    path = write_invocations(tmp_path / "functions.csv", np.linspace(0, 9.999, 5_000).tolist())
    arrived_s = read_trace(path, duration_s=10.0, load=0.5).arrivals(200.0, np.random.default_rng(0))
    assert arrived_s.size == pytest.approx(1_000, rel=0.1) and arrived_s.max() > 9.9
    whole = read_trace(path, duration_s=10.0, load=0.5).arrivals(10_000.0, np.random.default_rng(0))
    assert whole.size == 5_000


def test_an_invocation_without_a_time_is_named(tmp_path: Path) -> None:
    path = tmp_path / "functions.csv"
    path.write_text("app,func,end_timestamp,duration\na,f,1.0,x\n")
    with pytest.raises(TraceError, match=r"functions\.csv: line 2: duration is 'x'"):
        read_trace(path)
    path.write_text("app,func,end_timestamp,duration\n")
    with pytest.raises(TraceError, match=r"functions\.csv: holds no invocation"):
        read_trace(path)
