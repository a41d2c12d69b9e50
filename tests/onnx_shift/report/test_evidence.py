"""What a folder or a portfolio tells, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.profile import Profile
from onnx_shift.report.evidence import gather_evidence
from onnx_shift.report.page import render_page
from onnx_shift.runtime.archive import new_member
from onnx_shift.runtime.content import MODEL, Content
from onnx_shift.runtime.portfolio import Variant, write_portfolio
from tests.onnx_shift.models import shift
from tests.onnx_shift.report.examples import EVIDENCE, PROFILE, REPLAY, Links, _by_first, _entry


def test_report_of_a_folder(models: list[Path], tmp_path: Path) -> None:
    assert shift("profile", *models, "--seconds", "0.01", "-o", tmp_path / "profile.json").returncode == 0
    done = shift("report", tmp_path, "-o", tmp_path / "report.html")
    assert done.stdout == f"wrote {tmp_path / 'report.html'}\n"
    assert ">Variants<" in (tmp_path / "report.html").read_text()  # nothing was chosen: accuracy was not measured


def test_folder_is_searched_for_profile_and_pruning_reports(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    (tmp_path / "pruned").mkdir()
    rows = [
        ("Conv", [8, 3, 3, 3], [4, 3, 3, 3], 216),
        ("ConvTranspose", [8, 6, 2, 2], [4, 5, 2, 2], 192),
        ("Gemm", [12, 7], [6, 7], 84 + 7),  # its bias tells that the second axis counts outputs
        ("MatMul", [7, 5], [], 35),
    ]
    keys = ("name", "op", "before", "after", "parameters_before")
    layers = [dict(zip(keys, (row[0], *row), strict=True)) for row in rows]
    kept = [{"tensor": "t", "channels": [1, 2], "reason": "tied to x"}]
    report = {
        "source": "/a/half.onnx",
        "layers": layers,
        "kept": kept,
        "notes": [],
        "parameters_after_align_1": 1,
    }
    (tmp_path / "pruned" / "half.json").write_text(json.dumps(report))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "replay.json").write_text(json.dumps(REPLAY))
    found = gather_evidence(tmp_path)
    assert found.origin == ["Read from profile.json, replay.json, 1 report of onnx-shift prune."]
    assert found.profile == Profile.from_dict(PROFILE)
    assert found.dropped == {"worse": "half is nowhere worse (93.00%, 6 ms, 900 kB)"}
    assert [(layer.before, layer.after) for layer in found.prunings["half"].layers] == [
        (8, 4),
        (6, 5),
        (7, 7),
        (5, 0),
    ]
    assert found.prunings["half"].kept == ["t: 2 channels, tied to x"]
    assert found.replay == REPLAY
    assert found.missing == []


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match="holds no training, profile, pruning report or replay"):
        gather_evidence(tmp_path)
    with pytest.raises(OnnxShiftError, match=r"no\.zip"):
        gather_evidence(tmp_path / "no.zip")


def _write(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_profile_in_the_folder_itself_comes_first_and_the_others_are_named(tmp_path: Path) -> None:
    other = {**PROFILE, "machine": {**PROFILE["machine"], "processor": "old"}}
    for name in ("a/profile.json", "profile-old.json"):
        _write(tmp_path / name, other)
    assert gather_evidence(tmp_path).profile == Profile.from_dict(other)
    _write(tmp_path / "profile.json", PROFILE)
    found = gather_evidence(tmp_path)
    assert found.profile == Profile.from_dict(PROFILE)
    assert "Read from profile.json." in render_page(found)
    assert "Found as well and not used: profile-old.json, a/profile.json." in render_page(found)


def _with_accuracy(accuracy: float | None) -> dict[str, Any]:
    entries = PROFILE["variants"].items()
    return {name: {**entry, "accuracy": accuracy, "classes": 10} for name, entry in entries}


def test_where_nothing_is_chosen_the_page_says_why_and_gives_no_verdict(tmp_path: Path) -> None:
    _write(tmp_path / "profile.json", {**PROFILE, "variants": _with_accuracy(0.1)})
    page = render_page(gather_evidence(tmp_path))
    assert "None was chosen: no variant is worth keeping (dense: no better than guessing" in page
    assert "<b>4</b><span>variants</span>" in page
    assert "worth shipping" not in page
    assert _by_first(Links(page).csv["variants.csv"])["half"]["verdict"] == ""
    assert "</svg>variant</li>" in page


def test_accuracy_that_was_not_measured_is_named_among_what_is_not_shown(tmp_path: Path) -> None:
    _write(tmp_path / "profile.json", {**PROFILE, "variants": _with_accuracy(None)})
    page = render_page(gather_evidence(tmp_path))
    assert "None was chosen: dense: the profile holds no accuracy" in page
    assert "accuracy against latency and size: no accuracy of any variant; onnx-shift profile with --data" in page


def _broken_replay() -> dict[str, Any]:
    run = {**REPLAY["runs"]["policy"], "switched": [[1.0, "unknown"]]}
    return {**REPLAY, "runs": {"policy": run}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("profile.json", {"variants": {}, "machine": {}}, "not a profile: variants is {}"),
        ("profile.json", {"variants": [], "machine": {}}, r"not a profile: variants is \[\]"),
        ("profile.json", [], "not a profile: it holds no JSON object"),
        ("p.json", {**PROFILE, "machine": {}}, "not a profile: machine.processor is missing"),
        (
            "profile.json",
            {**PROFILE, "variants": {"a": {**_entry(0.9, 1.0, 9), "file_bytes": 0}}},
            "not a profile: variants.a.file_bytes is 0",
        ),
        ("profile.json", {**PROFILE, "variants": _with_accuracy(91.0)}, "variants.dense.accuracy is 91.0"),
        ("replay.json", {"runs": 1}, "no replay: trace is missing"),
        ("replay.json", _broken_replay(), r"runs.policy.switched\[0\] is \[1.0, 'unknown'\]"),
        ("r.json", {"parameters_after_align_1": 1}, "no report of onnx-shift prune: source is missing"),
    ],
)
def test_file_that_is_not_what_it_should_be_is_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = _write(tmp_path / name, content)
    with pytest.raises(OnnxShiftError, match=f"^{re.escape(str(path))}: .*{message}"):
        gather_evidence(tmp_path)


def test_pruning_report_without_layers_is_left_out_and_named(tmp_path: Path) -> None:
    empty = {"source": "half.onnx", "layers": [], "kept": [], "notes": [], "parameters_after_align_1": 0}
    _write(tmp_path / "relu.json", empty)
    with pytest.raises(OnnxShiftError, match=r"relu\.json lists no layers with weights"):
        gather_evidence(tmp_path)
    _write(tmp_path / "profile.json", PROFILE)
    found = gather_evidence(tmp_path)
    assert found.prunings == {}
    assert found.missing[0] == "channels per layer: relu.json lists no layers with weights"


def test_what_is_of_other_variants_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    other = json.loads(json.dumps(REPLAY).replace('"half"', '"stranger"'))
    (tmp_path / "replay.json").write_text(json.dumps(other))
    found = gather_evidence(tmp_path)
    assert found.replay is None
    assert found.origin == ["Read from profile.json.", "Found as well and not used: replay.json."]


def test_figures_that_are_null_count_as_not_stated() -> None:
    variants = {name: entry | {"providers": None} for name, entry in PROFILE["variants"].items()}
    stated = PROFILE | {"variants": variants, "baseline": None}
    fewer = {
        name: {key: value for key, value in entry.items() if key != "providers"}
        for name, entry in PROFILE["variants"].items()
    }
    without = {key: value for key, value in PROFILE.items() if key != "baseline"} | {"variants": fewer}
    pages = [render_page(replace(EVIDENCE, profile=Profile.from_dict(one))) for one in (stated, without)]
    assert pages[0] == pages[1]


def test_portfolio_shows_its_variants_and_says_what_it_does_not_state(tmp_path: Path) -> None:
    measured = {name: PROFILE["variants"][name] for name in ("tiny", "half")}
    metadata = {name: {"seed": 3, "method": "imp", **entry} for name, entry in measured.items()}
    path = _portfolio(tmp_path / "p.zip", metadata)
    found = gather_evidence(path)
    assert found.profile == Profile.from_dict({"variants": metadata})
    assert found.dropped is None
    assert found.optimal == ("tiny", "half")
    page = render_page(found)
    assert "All variants: method imp, seed 3." in page
    assert "A portfolio does not state machine, date, threads and baseline" in page
    assert _by_first(Links(page).csv["variants.csv"])["half"]["verdict"] == "Pareto-optimal"


def test_portfolio_without_figures_is_refused(tmp_path: Path) -> None:
    path = _portfolio(tmp_path / "p.zip", {"tiny": {}})
    with pytest.raises(OnnxShiftError, match=r"p\.zip: was packed without --profile"):
        gather_evidence(path)
    path = _portfolio(tmp_path / "p.zip", {"tiny": {"latency_ms": 1}})
    with pytest.raises(OnnxShiftError, match=r"p\.zip: not a portfolio with figures: variants.tiny.latency_ms is 1"):
        gather_evidence(path)


def _portfolio(path: Path, metadata: dict[str, dict[str, Any]]) -> Path:
    contents = {name: Content(new_member(f"{name}/{MODEL}", b"model"), {}, ()) for name in metadata}
    variants = [Variant(name, size, size, 5, "", figures) for size, (name, figures) in enumerate(metadata.items())]
    with path.open("wb") as file:
        write_portfolio(file, variants, contents, [], [])
    return path


def test_a_profile_alone_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(PROFILE))
    evidence = gather_evidence(tmp_path / "mine.json")
    assert evidence.title == "Profile mine.json" and evidence.profile == Profile.from_dict(PROFILE)
    assert "Read from mine.json." in render_page(evidence)
    (tmp_path / "mine.json").write_text("[]")
    with pytest.raises(OnnxShiftError, match=r"mine.json: not a profile"):
        gather_evidence(tmp_path / "mine.json")
