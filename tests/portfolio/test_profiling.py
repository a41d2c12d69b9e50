"""What a profile counts and measures."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profile import Baseline, Profile, ProfileError
from onnx_shift.portfolio.profiling import DENSE_FUSED, Settings, profile
from onnx_shift.portfolio.select import SelectionError, select
from onnx_shift.runtime import LatencyObjective, ModelSwitcher, Portfolio
from tests.portfolio.models import QUICK, _convolution, _images, _linear, _parse


def test_profile_counts_and_measures_every_model(tmp_path: Path) -> None:
    dense = _convolution(tmp_path / "dense.onnx", 16, ratio="1", accuracy="0.5")
    small = _convolution(tmp_path / "small.onnx", 4, ratio="8", accuracy="0.4")
    found = profile([small, dense], settings=QUICK, date="2024-05-06")
    assert Profile.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.machine is not None
    assert found.dense == "dense"
    assert found.baseline == Baseline("dense")
    assert found.machine.threads == 1
    assert found.machine.date == "2024-05-06"
    entry = found.variants["small"]
    assert entry.parameters == 4 * 2 * 9 + 4 + 4 * 16 * 7
    assert entry.macs == 4 * 2 * 9 * 16 + 4 * 16 * 7
    assert entry.file_bytes == small.stat().st_size
    assert entry.model_sha256 == hashlib.sha256(small.read_bytes()).hexdigest()
    assert (entry.ratio, entry.accuracy) == (8.0, 0.4)
    assert set(entry.timing.latency) == {1, 4}
    assert 0 < entry.timing.latency[1].p50_ms <= (entry.timing.latency[1].p99_ms or 0)
    assert (entry.timing.images_per_second or 0) > 0
    assert found.variants["dense"].timing.speedup[1].median == 1.0


def test_the_baseline_of_an_unfused_dense_model_is_fused(tmp_path: Path) -> None:
    dense = _convolution(tmp_path / "dense.onnx", 8, norm=True)
    small = _convolution(tmp_path / "small.onnx", 4)
    found = profile([dense, small], settings=QUICK)
    assert found.baseline is not None and found.baseline.timing is not None
    assert found.baseline.name == DENSE_FUSED
    assert found.baseline.timing.speedup[1].median == 1.0
    assert list(found.variants) == ["dense", "small"]


def test_external_weights_count_as_part_of_the_file(tmp_path: Path) -> None:
    model = onnx.load(_convolution(tmp_path / "inline.onnx", 16))
    outside = tmp_path / "outside.onnx"
    onnx.save(model, outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    entry = profile([outside], settings=QUICK).variants["outside"]
    assert entry.file_bytes == outside.stat().st_size + (tmp_path / "weights.bin").stat().st_size


def test_the_structure_is_that_of_the_network_not_of_its_weights(tmp_path: Path) -> None:
    models = [_convolution(tmp_path / "one.onnx", 16), _convolution(tmp_path / "small.onnx", 4)]
    other = onnx.load(models[0])
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    other.metadata_props.add(key="onnx_shift.ratio", value="2")
    faster = onnx.load(models[0])
    faster.graph.node[1].op_type = "Neg"
    for name, model in {"zeros": other, "faster": faster}.items():
        models.append(tmp_path / f"{name}.onnx")
        onnx.save(model, models[-1])
    found = {name: entry.structure for name, entry in profile(models, settings=QUICK).variants.items()}
    assert found["one"] == found["zeros"]
    assert len(set(found.values())) == 3


def test_accuracy_from_data_replaces_what_the_metadata_claim(tmp_path: Path) -> None:
    model = _linear(tmp_path / "m.onnx", accuracy="0.1")

    def data() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        yield _images(50)

    entry = profile([model], data=data, settings=QUICK).variants["m"]
    assert (entry.accuracy, entry.top5, entry.images, entry.classes) == (1.0, 1.0, 50, 7)


def test_each_model_may_have_images_of_its_own(tmp_path: Path) -> None:
    models = [_linear(tmp_path / f"{name}.onnx") for name in ("one", "other")]
    images, labels = _images(20)
    data = {models[0]: lambda: [(images, labels)], models[1]: lambda: [(-images, labels)]}
    found = profile(models, data=data, settings=QUICK).variants
    assert found["one"].accuracy == 1.0 and (found["other"].accuracy or 0.0) < 1.0


def test_what_cannot_be_profiled_is_refused_in_one_line(tmp_path: Path) -> None:
    model = _linear(tmp_path / "m.onnx")
    other = tmp_path / "other"
    other.mkdir()
    _linear(other / "m.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    free = tmp_path / "free.onnx"
    onnx.save(_parse("(float[N,1,H,W] x) => (float[N,1,H,W] y)", "y = Relu(x)"), free)
    two = tmp_path / "two.onnx"
    onnx.save(_parse("(float[1,2] a, float[1,2] b) => (float[1,2] y)", "y = Add(a, b)"), two)
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([tmp_path / "none.onnx"], {}, "none.onnx: no such file"),
        ([text], {}, "text.onnx: .*ONNX"),
        ([model, other / "m.onnx"], {}, "m: two models have this name"),
        ([model], {"dense": tmp_path / "d.onnx"}, "d.onnx: the dense model is not among"),
        ([model], {"settings": Settings(providers=("Abacus",))}, "provider Abacus: not in this onnxruntime"),
        ([model], {"data": list, "settings": QUICK}, "the data set holds no image"),
        (
            [model],
            {"data": lambda: [(np.zeros((2, 9), np.float32), np.zeros(2))]},
            "m.onnx: does not take images of 9 as input",
        ),
        (
            [model],
            {"data": lambda: [(_images(2)[0], np.full(2, 7))]},
            "tells 7 classes apart, images are labelled up to 7",
        ),
        (
            [two],
            {"data": lambda: [(_images(2)[0], np.zeros(2))]},
            r"two.onnx: has 2 inputs \(a, b\), images are but one",
        ),
        (
            [model],
            {"settings": Settings(input_shapes={"x": (1,)})},
            "input_shapes x: none of the models has an input",
        ),
        ([free], {"settings": Settings(input_shapes={"x": (1, 1, 0, 8)})}, r"x=1,1,0,8: .*takes \(N,1,H,W\)"),
        ([free], {"settings": Settings(input_shapes={"x": (1, 2, 8, 8)})}, r"x=1,2,8,8: .*takes \(N,1,H,W\)"),
        ([free], {"settings": QUICK}, r"input x: axis 2 of \(N,1,H,W\) is free"),
    ]
    for models, options, message in cases:
        with pytest.raises(OnnxShiftError, match=message):
            profile(models, **options)


def test_scores_by_name_are_kept_and_one_ranks(tmp_path: Path) -> None:
    models = [_linear(tmp_path / "a.onnx"), _linear(tmp_path / "b.onnx")]
    scores = iter([{"map50": 0.5, "map75": 0.4}, {"map50": 0.6, "map75": 0.1}])
    measured = profile(models, evaluate=lambda infer: next(scores), settings=QUICK)
    assert Profile.from_dict(measured.to_dict()) == measured
    assert [one.accuracy for one in measured.variants.values()] == [0.5, 0.6]
    assert select(measured, metrics=["map75"]).kept == ("a",)
    pack(models, tmp_path / "p.zip", profile=measured, metrics=["latency", "map75"], keep_all=True)
    portfolio = Portfolio.open(tmp_path / "p.zip")
    assert {variant.name: variant.accuracy for variant in portfolio.variants} == {"a": 0.4, "b": 0.1}
    assert best(portfolio) == "a"
    with pytest.raises(SelectionError, match=r"metric map99: unknown; choose from accuracy, .*switch, map50, map75"):
        select(measured, metrics=["map99"])


def best(portfolio: Portfolio) -> str:
    """What the policy serves where it has all the time."""
    with ModelSwitcher(portfolio, policy=LatencyObjective(p95_ms=1e6), start="b", cache=False) as model:
        images = np.zeros((1, 2, 6, 6), np.float32)
        for _ in range(200):
            model.run(None, {"input": images})
            if model.active.name == "a":
                break
            time.sleep(0.05)
        return model.active.name


@pytest.mark.parametrize(
    ("returned", "message"),
    [(1.5, "returned 1.5, not a share"), ({}, "returned no score"), ({"size": 0.5}, "returned size, which profile"),
     ({"map": 2}, "returned map 2, not a share"), (None, "returned None, not a share")],
)  # fmt: skip
def test_what_is_no_score_is_refused(tmp_path: Path, returned: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        profile([_linear(tmp_path / "a.onnx")], evaluate=lambda infer: returned, settings=QUICK)


def test_an_accuracy_may_be_stated(tmp_path: Path) -> None:
    path = _linear(tmp_path / "a.onnx", accuracy="0.2")
    stated = profile([path], accuracy={path: 0.7}, settings=QUICK).variants["a"]
    assert stated.accuracy == 0.7 and stated.accuracy_claimed
    with pytest.raises(ProfileError, match="a share from 0 to 1"):
        profile([path], accuracy={path: 70}, settings=QUICK)
    with pytest.raises(ProfileError, match=r"accuracy.*is measured by"):
        profile([path], accuracy={path: 0.7}, evaluate=lambda infer: 1.0, settings=QUICK)
