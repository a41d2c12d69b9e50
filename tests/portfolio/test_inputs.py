"""What a user names: models, folders of an unzipped portfolio, portfolios; and what is packed of them."""

import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from onnx_shift.claims import renew_claim
from onnx_shift.portfolio.inputs import open_sources, variant_name
from onnx_shift.portfolio.pack import PackError, pack
from onnx_shift.portfolio.profile import Latency, Machine, Profile, Timing, Variant
from onnx_shift.portfolio.profiling import Settings, profile
from onnx_shift.runtime import Portfolio, PortfolioError
from tests.runtime.conftest import network

QUICK = Settings(seconds=0.01, attempts=1, memory=False)
MACHINE = Machine("a board", 4, "1.31", ("CPUExecutionProvider",), 2, date="2026-01-02")


def save(path: Path, width: int = 16, accuracy: str | None = None) -> Path:
    model = network(width)
    if accuracy is not None:
        helper.set_model_props(model, {"onnx_shift.accuracy": accuracy})
        renew_claim(model)
    onnx.save(model, path)
    return path


def entry(path: Path, accuracy: float | None, *, claimed: bool = False) -> Variant:
    timing = Timing({1: Latency(1.0 + path.stat().st_size)})
    return Variant(timing, path.stat().st_size, accuracy=accuracy, accuracy_claimed=claimed)


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    """A portfolio of two variants, whose accuracy was measured on a board."""
    paths = [save(tmp_path / "small.pruned.onnx", 16, "0.7"), save(tmp_path / "large.onnx", 48, "0.8")]
    measured = Profile({"small": entry(paths[0], 0.71), "large": entry(paths[1], 0.82)}, dense="large", machine=MACHINE)
    pack(paths, tmp_path / "p.zip", profile=measured, keep_all=True)
    return tmp_path / "p.zip"


def names(portfolio: Path) -> list[str]:
    return [variant.name for variant in Portfolio.open(portfolio)]


def test_names_come_without_pruned_and_of_unzipped_folders(zipped: Path, tmp_path: Path) -> None:
    assert names(zipped) == ["small", "large"]
    with zipfile.ZipFile(zipped) as file:
        file.extractall(tmp_path / "unzipped")
    assert variant_name(tmp_path / "unzipped" / "small" / "model.onnx") == "small"
    (tmp_path / "models").mkdir()
    assert variant_name(save(tmp_path / "models" / "model.onnx")) == "model"
    with open_sources([tmp_path / "unzipped" / "large", zipped, tmp_path / "models" / "model.onnx"]) as sources:
        assert [source.name for source in sources] == ["large", "small", "large", "model"]
        assert all(source.path.is_file() for source in sources)
    assert not sources[1].path.exists()


def test_packed_again_a_portfolio_keeps_its_models_and_metadata(zipped: Path, tmp_path: Path) -> None:
    pack([zipped], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == zipped.read_bytes()
    small = Portfolio.open(zipped)["small"]
    assert small.metadata["machine"] == MACHINE.to_dict()
    assert small.accuracy == 0.71 and not small.accuracy_claimed


def test_models_are_added_and_replaced_and_variants_left_out(zipped: Path, tmp_path: Path) -> None:
    new, other = save(tmp_path / "tiny.onnx", 8), save(tmp_path / "large.pruned.onnx", 40)
    pack([new, zipped, other], tmp_path / "q.zip", without=["small"])
    found, before = Portfolio.open(tmp_path / "q.zip"), Portfolio.open(zipped)
    assert [variant.name for variant in found] == ["tiny", "large"]
    assert found["large"].sha256 != before["large"].sha256 and found["large"].accuracy is None
    with pytest.raises(PackError, match="without=none: there is no variant 'none', only large, small"):
        pack([zipped], tmp_path / "q.zip", without=["none"])
    for twice in ([other, tmp_path / "large.onnx"], [zipped, zipped]):
        with pytest.raises(PackError, match="a second model of the name"):
            pack(twice, tmp_path / "q.zip")


def test_a_portfolio_is_profiled_and_packed_with_what_was_measured(zipped: Path, tmp_path: Path) -> None:
    found = profile([zipped], settings=QUICK, date="2026-02-03")
    assert list(found.variants) == ["small", "large"] and found.dense == "large"
    assert [(one.accuracy, one.accuracy_claimed) for one in found.variants.values()] == [(0.7, True), (0.8, True)]
    pack([zipped], tmp_path / "q.zip", profile=found, keep_all=True)
    packed = Portfolio.open(tmp_path / "q.zip")
    assert packed["small"].metadata["machine"]["date"] == "2026-02-03"
    assert [variant.accuracy for variant in packed] == [0.71, 0.82]  # measured once, claimed since
    assert not any(variant.accuracy_claimed for variant in packed)
    (tmp_path / "other").mkdir()
    with pytest.raises(PackError, match=r"small\.onnx: the profile was made of another model of this name"):
        pack([save(tmp_path / "other" / "small.onnx", 17), zipped], tmp_path / "r.zip", profile=found)


def test_weights_changed_since_lose_the_accuracy(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", accuracy="0.9")
    assert profile([path], settings=QUICK).variants["m"].accuracy == 0.9
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = b"\1\2\3\4" + model.graph.initializer[0].raw_data[4:]
    onnx.save(model, path)
    one = profile([path], settings=QUICK).variants["m"]
    assert one.accuracy is None and not one.accuracy_claimed
    pack([path], tmp_path / "p.zip")
    assert "accuracy" not in Portfolio.open(tmp_path / "p.zip")["m"].metadata


def test_selection_says_when_it_ranks_by_claims(zipped: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "small.pruned.onnx", tmp_path / "large.onnx"]
    found = Profile({"small": entry(paths[0], 0.7, claimed=True), "large": entry(paths[1], 0.8)}, dense="large")
    selection = pack(paths, tmp_path / "q.zip", profile=found)
    assert selection.notes == ("chosen by accuracies that are claimed, not measured: small",)
    assert Portfolio.open(tmp_path / "q.zip")["small"].accuracy_claimed
    measured = replace(found, variants={**found.variants, "small": entry(paths[0], 0.7)})
    assert pack(paths, tmp_path / "q.zip", profile=measured).notes == ()


def test_a_broken_portfolio_is_named(zipped: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(zipped.read_bytes()[:-1])
    with pytest.raises(PortfolioError, match=r"broken\.zip: no archive, or cut short"):
        pack([tmp_path / "broken.zip"], tmp_path / "q.zip")
