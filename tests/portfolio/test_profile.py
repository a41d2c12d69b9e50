"""The profile as a file: what is read is what was saved, and what is wrong is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from onnx_shift.portfolio.profile import (
    Baseline,
    Cascade,
    Latency,
    Machine,
    Profile,
    ProfileError,
    Speedup,
    Timing,
    Variant,
)

ROOT = Path(__file__).parents[2]
TIMING = Timing({1: Latency(0.5, 0.75, 1.0, 0.1, 30, 2, True), 16: Latency(4.0, 5.0, 6.0)}, {1: Speedup(2.0, 1.5, 2.5)})
FULL = Profile(
    {
        "dense": Variant(TIMING, 1000, 500, "a" * 64, "b" * 64, 250, 2500, 1.0, 0.5, 0.75, 100, 10, 2.5),
        "small": Variant(
            TIMING,
            10,
            providers={"Other": Timing({1: Latency(0.25)}, {}, 4000.0, 1.5, 2.5)},
            cascade={"dense": Cascade(0.5, 0.25, 0.5)},
        ),
    },
    "dense",
    Machine("P", 2, "1.23", ("CPUExecutionProvider", "Other"), 1, "Linux", "3.12", "1.19", "2024-05-06"),
    Baseline("dense, BatchNorm fused", TIMING),
)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    FULL.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == FULL


@pytest.mark.parametrize(("page", "keys"), [("cifar10", ("details",)), ("demo", ("details", "profile"))])
def test_published_profiles_are_read_and_written_as_they_were(page: str, keys: tuple[str, ...]) -> None:
    found = json.loads((ROOT / "docs" / "results" / f"{page}.json").read_text())
    for key in keys:
        found = found[key]
    profile = Profile.from_dict(found)
    assert json.dumps(profile.to_dict(), indent=2) == json.dumps(found, indent=2)
    assert {name: one.file_bytes for name, one in profile.variants.items()} == {
        name: entry["file_bytes"] for name, entry in found["variants"].items()
    }


def test_unknown_fields_of_a_variant_are_kept() -> None:
    entry = {"file_bytes": 1, "latency_ms": {"1": {"p50": 1.0}}, "seed": 3}
    profile = Profile.from_dict({"variants": {"m": entry}})
    assert profile.variants["m"].other == {"seed": 3}
    assert profile.to_dict()["variants"]["m"]["seed"] == 3


def test_timings_are_found_by_provider() -> None:
    assert FULL.on_provider("Other") == {"small": FULL.variants["small"].providers["Other"]}
    assert set(FULL.on_provider()) == {"dense", "small"}
    assert (TIMING.smallest_batch, TIMING.median_ms, TIMING.compared) == (1, 0.5, Speedup(2.0, 1.5, 2.5))


def _with(**changes: Any) -> str:
    entry = {"file_bytes": 1, "latency_ms": {"1": {"p50": 1.0}}, **changes}
    return json.dumps({"variants": {"m": entry}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "it holds no JSON object"),
        ("{}", "variants is missing"),
        ('{"variants": {"m": 3}}', "variants.m is 3"),
        ('{"variants": 3}', "variants is 3"),
        ('{"format": 2, "variants": {}}', "format 2 is not the one that this version reads, 1"),
        (_with(latency_ms={"1": {}}), "variants.m.latency_ms.1.p50 is missing"),
        (_with(latency_ms={}), "variants.m.latency_ms is missing"),
        (_with(latency_ms={"0": {"p50": 1.0}}), r"variants.m.latency_ms is \{'0'"),
        (_with(file_bytes=None), "variants.m.file_bytes is missing"),
        (_with(accuracy=91.0), "variants.m.accuracy is 91.0"),
        (_with(speedup={"1": {"median": "fast"}}), "variants.m.speedup.1.median is 'fast'"),
        (_with(providers={"Other": {"latency_ms": 1}}), "variants.m.providers.Other.latency_ms is 1"),
    ],
)
def test_a_file_that_is_not_a_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=rf"profile\.json: not a profile: {message}"):
        Profile.load(path)


def test_a_profile_without_variants_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"variants": {}}')
    assert Profile.load(tmp_path / "p.json") == Profile({})
