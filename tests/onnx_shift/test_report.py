"""The HTML report: what it says, and that it works in a real browser."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.report.charts import Axis, cost_axis, linear_axis
from onnx_shift.report.evidence import Evidence, Layer, Pruning, gather_evidence
from onnx_shift.report.page import render_page
from onnx_shift.runtime.archive import new_member
from onnx_shift.runtime.portfolio import MODEL, Content, Variant, write_portfolio


def _entry(accuracy: float, latency: float, size: int, noisy: bool = False) -> dict[str, Any]:
    figures = {"p50": latency, "p95": 2 * latency, "p99": 3 * latency, "noisy": noisy}
    speedup = {"median": 10 / latency, "low": 9 / latency, "high": 11 / latency}
    return {
        "ratio": round(10 / latency, 2),
        "accuracy": accuracy,
        "top5": 0.99,
        "images": 1000,
        "parameters": size // 4,
        "macs": size,
        "file_bytes": size,
        "deflated_bytes": size // 2,
        "memory_mb": 1.5,
        "peak_memory_mb": 2.5,
        "throughput": 250.0,
        "switch_ms": 2.0,
        "latency_ms": {"1": figures, "16": {**figures, "p50": 4 * latency, "noisy": False}},
        "speedup": {"1": speedup, "16": {**speedup, "high": 12 / latency}},
        "providers": {"Other": {"latency_ms": {"1": figures}, "speedup": {"1": speedup}, "memory_mb": 7.0}},
    }


PROFILE: dict[str, Any] = {
    "format": 1,
    "machine": {
        "processor": "A <processor>", "cores": 2, "onnxruntime": "1.32", "threads": 1, "date": "2024-05-06",
        "providers": ["CPUExecutionProvider", "Other"],
    },
    "dense": "dense",
    "baseline": {"name": "dense, BatchNorm fused"},
    "variants": {
        "dense": _entry(0.95, 10.0, 4_000_000),
        "half": _entry(0.93, 6.0, 900_000),
        "worse": _entry(0.90, 7.0, 950_000, noisy=True),
        "tiny": _entry(0.85, 2.0, 30_000),
    },
}  # fmt: skip


def _run(p95: list[float | None], variants: list[str], switched: list[list[Any]]) -> dict[str, Any]:
    rows = [
        {
            "seconds": second, "load": 0.5, "requests_per_second": 10.0 * second, "p50_ms": 1.0, "p95_ms": ms,
            "variant": name, "accuracy": 0.9,
        }
        for second, (ms, name) in enumerate(zip(p95, variants, strict=True))
    ]  # fmt: skip
    latency = {"p50": 1.0, "p95": 50.0, "p99": 90.0}
    return {
        "requests": 60, "failed": 0, "within_objective": 0.75, "latency_ms": latency, "accuracy": 0.91,
        "switches": len(switched), "switched": switched, "intervals": rows,
    }  # fmt: skip


REPLAY: dict[str, Any] = {
    "trace": "ramp", "duration_s": 4.0, "variants": ["tiny", "half"], "objective_ms": 40.0,
    "largest_serves_per_second": 25.0, "figures": {"within_of_smallest": 0.9, "accuracy_gain": 0.5},
    "runs": {
        "policy": _run([1.0, None, 30.0, 45.0], ["half", "half", "tiny", "tiny"], [[2.25, "tiny"]]),
        "smallest": _run([1.0, 1.0, 1.0, 1.0], ["tiny"] * 4, []),
        "largest": _run([2.0, 20.0, 200.0, 900.0], ["half"] * 4, []),
    },
}  # fmt: skip

EVIDENCE = Evidence(
    title="A & B",
    profile=PROFILE,
    dropped={"worse": "half is nowhere worse"},
    optimal=("dense", "half", "tiny"),
    prunings={
        "half": Pruning([Layer("conv,1", 64, 40), Layer("gone", 32, 0)], ["t: 2 channel(s), tied"]),
        "tiny": Pruning([Layer("conv,1", 64, 8), Layer("gone", 32, 4)]),
    },
    replay=REPLAY,
    missing=["nothing else"],
)


class Links(HTMLParser):
    """Collects the CSV downloads and whatever would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.csv: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        target = found.get("href") or found.get("src") or ""
        if "download" in found:
            text = unquote(target.partition(",")[2])
            self.csv[str(found["download"])] = list(csv.reader(io.StringIO(text)))
        elif target and not target.startswith(("#", "data:")):
            self.fetched.append(target)


def test_page_fetches_nothing_and_escapes_what_it_shows() -> None:
    page = render_page(EVIDENCE)
    assert Links(page).fetched == []
    assert "url(" not in page
    assert "@import" not in page
    assert "A &lt;processor&gt;" in page
    assert "<title>A &amp; B</title>" in page


def test_every_figure_can_be_downloaded_as_a_table() -> None:
    tables = Links(render_page(EVIDENCE)).csv
    assert set(tables) == {
        *(
            "accuracy-latency.csv",
            "accuracy-size.csv",
            "variants.csv",
            "latencies.csv",
            "layers.csv",
            "replay.csv",
            "timeline.csv",
            "switches.csv",
        )
    }
    drawn = [f"{name}_{key}_ms" for name in ("policy", "smallest", "largest") for key in ("p50", "p95")]
    assert tables["timeline.csv"][0] == ["seconds", "requests_per_second", "variant", "accuracy", *drawn]
    assert tables["timeline.csv"][2] == ["1", "10", "half", "0.9", "1", "", "1", "1", "1", "20"]
    assert tables["switches.csv"] == [["seconds", "variant"], ["2.25", "tiny"]]
    assert [row[2] for row in tables["replay.csv"]] == ["within_objective", "0.75", "0.75", "0.75"]
    assert tables["accuracy-size.csv"][2] == ["half", "0.93", "900000"]
    assert tables["layers.csv"][1:3] == [["half", "conv,1", "64", "40"], ["half", "gone", "32", "0"]]
    variants = _by_first(tables["variants.csv"])
    assert variants["worse"]["verdict"] == "left out: half is nowhere worse"
    assert (variants["worse"]["noisy"], variants["tiny"]["noisy"]) == ("yes", "no")
    wanted = {
        "speedup": "5", "speedup_low": "4.5", "speedup_high": "5.5", "top5": "0.99", "macs": "30000",
        "peak_memory_mb": "2.5", "throughput": "250", "deflated_bytes": "15000",
    }  # fmt: skip
    assert {key: variants["tiny"][key] for key in wanted} == wanted
    latencies = [dict(zip(tables["latencies.csv"][0], row, strict=True)) for row in tables["latencies.csv"]]
    assert len(latencies) == 1 + 4 * 3  # four variants: two batches, and one on another provider
    keys = ("provider", "batch", "latency_ms", "p95_ms", "p99_ms", "throughput", "speedup_high", "memory_mb")
    assert [[row[key] for key in keys] for row in latencies if row["variant"] == "tiny"] == [
        ["CPUExecutionProvider", "1", "2", "4", "6", "500", "5.5", "1.5"],
        ["CPUExecutionProvider", "16", "8", "4", "6", "2000", "6", "1.5"],
        ["Other", "1", "2", "4", "6", "500", "5.5", "7"],
    ]


def _by_first(table: list[list[str]]) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}


def test_speed_up_stands_with_the_range_of_its_rounds_and_noise_is_marked() -> None:
    page = render_page(EVIDENCE)
    assert "the median of interleaved rounds, in brackets the lowest and the highest of them" in page
    assert "<td>5.00× (4.50–5.50)</td>" in page
    assert "<td>~7 ms</td>" in page
    assert "~ marks what stayed noisy when it was measured again." in page


def test_every_table_and_every_group_that_scrolls_has_its_own_name() -> None:
    page = render_page(EVIDENCE)
    for opening, count in (
        ('<table aria-label="', 9),
        ('role="group" aria-label="Table: ', 9),
        ("<summary>", 8),
    ):
        names = [part.partition(">" if opening[-1] == '"' else "<")[0] for part in page.split(opening)[1:]]
        assert (len(names), len(set(names))) == (count, count)


def test_dense_model_that_was_left_out_is_drawn_hollow() -> None:
    assert 'class="point dense"' in render_page(EVIDENCE)
    page = render_page(replace(EVIDENCE, dropped={"dense": "half is nowhere worse"}))
    assert page.count('<g class="point dense dropped"') == 2  # one for each figure
    assert page.count("</svg>dense, left out</li>") == 2
    assert 'class="point dense"' not in page


def test_accuracies_that_are_all_alike_have_an_axis_within_one_hundred_percent() -> None:
    page = render_page(Evidence("one", {**PROFILE, "variants": {"dense": _entry(0.995, 10.0, 4_000_000)}}))
    ticks = re.findall(r">(\d+\.\d)%</text>", page)
    assert (ticks[0], ticks[-1]) == ("98.5", "100.0")
    assert "smaller, the smallest against the largest" not in page


def test_long_names_are_shortened_to_what_tells_them_apart_with_the_whole_name_beside() -> None:
    names = {name: f"network-with-a-long-name-{name}-fine-tuned" for name in ("half", "tiny")}
    text = json.dumps(REPLAY)
    for name, long in names.items():
        text = text.replace(f'"{name}"', f'"{long}"')
    page = render_page(Evidence("long", replay=json.loads(text)))
    assert f"<title>{names['half']}</title>" in page
    assert ">…long-name-half-fin…</text>" in page
    assert ">…long-name-tiny-fin…</text>" in page


def test_pareto_front_of_each_figure_leaves_out_what_another_point_beats() -> None:
    page = render_page(EVIDENCE)
    fronts = [part.split('"')[0] for part in page.split('class="line front" points="')[1:]]
    corners = [len(front.split()) for front in fronts if "22,8" not in front]
    assert corners == [6, 6]  # three points: a corner between two, and the line to the right edge


def test_words_of_a_point_name_its_figures_and_why_it_was_left_out() -> None:
    page = render_page(EVIDENCE)
    assert 'aria-label="half: 93.00% accurate, 900 kB, 6 ms at batch 1, 24 ms at batch 16"' in page
    assert (
        "worse: 90.00% accurate, 950 kB, ~7 ms at batch 1, 28 ms at batch 16\nleft out: half is nowhere worse" in page
    )


def test_replay_is_told_in_words_and_its_switches_can_be_read() -> None:
    page = render_page(EVIDENCE)
    assert "Trace ramp, 4 seconds, 60 requests; in time means within 40 ms." in page
    assert "90.00% of what the smallest variant answers in time, with 1 switch" in page
    assert "reached 50.00% of the accuracy that knowing the load beforehand would gain" in page
    assert 'aria-label="2.25 s: switched to tiny"' in page


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (cost_axis("", [1.0, 4.0], "{:g}".format), ["0", "1", "2", "3", "4"]),
        (cost_axis("", [9.0, 150.0], "{:g}".format), ["10", "20", "50", "100"]),
        (cost_axis("", [1.0, 10_000.0], "{:g}".format), ["1", "10", "100", "1000", "10000"]),
        (
            linear_axis("", [0.93, 0.99], "{:.2f}".format),
            ["0.93", "0.94", "0.95", "0.96", "0.97", "0.98", "0.99"],
        ),
        (linear_axis("", [0.5, 0.5], "{:.1f}".format), ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]),
    ],
)
def test_axes_have_round_ticks_and_hold_all_values(axis: Axis, labels: list[str]) -> None:
    assert [label for _, label in axis.ticks] == labels
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value, _ in axis.ticks)


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
    assert found.profile == PROFILE
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
    assert gather_evidence(tmp_path).profile == other
    _write(tmp_path / "profile.json", PROFILE)
    found = gather_evidence(tmp_path)
    assert found.profile == PROFILE
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
        ("profile.json", {"variants": {}, "machine": {}}, "no profile: variants is {}"),
        ("profile.json", {"variants": [], "machine": {}}, r"no profile: variants is \[\]"),
        ("profile.json", [], "no profile: it holds no JSON object"),
        ("p.json", {**PROFILE, "machine": {}}, "no profile: machine.processor is missing"),
        (
            "profile.json",
            {**PROFILE, "variants": {"a": {**_entry(0.9, 1.0, 9), "file_bytes": 0}}},
            "no profile: variants.a.file_bytes is 0",
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


def test_a_folder_of_a_training_shows_its_levels(tmp_path: Path) -> None:
    header = "level,round,ratio,kept,total,accuracy,onnx\n"
    rows = "0,0,1.0,800,800,0.91,0.onnx\n1,1,2.0,400,800,0.925,1.onnx\n2,2,4.0,200,800,0.9,2.onnx\n"
    (tmp_path / "levels.csv").write_text(header + rows)
    found = gather_evidence(tmp_path)
    page = render_page(found)
    assert "91.00% dense; best 92.50% at ratio 2; 90.00% at ratio 4." in page
    assert [row[3] for row in Links(page).csv["levels.csv"][1:]] == ["0.91", "0.925", "0.9"]
    assert page.count('class="moment"') == 3
    assert found.origin == ["Read from levels.csv."]
    (tmp_path / "levels.csv").write_text(header + "0,0,0.5,800,800,0.91,level-00.onnx\n")
    with pytest.raises(OnnxShiftError, match=r"levels\.csv: no list of levels, as train writes it .a ratio below 1"):
        gather_evidence(tmp_path)
    (tmp_path / "levels.csv").write_text("level,ratio\n0,1\n")
    with pytest.raises(OnnxShiftError, match=r"levels\.csv: no list of levels, as train writes it .'kept'"):
        gather_evidence(tmp_path)


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
    assert render_page(replace(EVIDENCE, profile=stated)) == render_page(replace(EVIDENCE, profile=without))


def test_portfolio_shows_its_variants_and_says_what_it_does_not_state(tmp_path: Path) -> None:
    measured = {name: PROFILE["variants"][name] for name in ("tiny", "half")}
    metadata = {name: {"seed": 3, "method": "imp", **entry} for name, entry in measured.items()}
    path = _portfolio(tmp_path / "p.zip", metadata)
    found = gather_evidence(path)
    assert found.profile == {"variants": metadata}
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
    with pytest.raises(OnnxShiftError, match=r"p\.zip: no portfolio with figures: variants.tiny.latency_ms is 1"):
        gather_evidence(path)


def _portfolio(path: Path, metadata: dict[str, dict[str, Any]]) -> Path:
    contents = {name: Content(new_member(f"{name}/{MODEL}", b"model"), {}, ()) for name in metadata}
    variants = [Variant(name, size, 5, "", figures) for size, (name, figures) in enumerate(metadata.items())]
    with path.open("wb") as file:
        write_portfolio(file, variants, contents, [], [])
    return path


# --- in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium and its driver are not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    path = tmp_path / "report.html"
    path.write_text(render_page(EVIDENCE))
    browser.set_window_size(1200, 900)
    browser.get(path.as_uri())
    return browser


def test_browser_shows_the_page_without_a_word_on_the_console(page: Any) -> None:
    assert page.title == "A & B"
    assert page.get_log("browser") == []
    assert len(page.find_elements("css selector", "svg[role=group]")) == 5


def test_tooltip_comes_with_keyboard_focus_and_goes_with_escape(page: Any) -> None:
    tip = page.find_element("id", "tip")
    assert not tip.is_displayed()
    page.execute_script("document.querySelector('.point[aria-label^=half]').focus()")
    assert tip.text.startswith("half: 93.00% accurate")
    page.switch_to.active_element.send_keys("\ue00c")
    assert not tip.is_displayed()


def test_variant_choice_shows_its_layers_alone(page: Any) -> None:
    def shown() -> list[str]:
        panels = page.find_elements("css selector", "[data-panel=layers]")
        return [panel.get_attribute("aria-label") for panel in panels if panel.is_displayed()]

    assert shown() == ["tiny"]
    page.find_element("css selector", "#variant").send_keys("half")
    assert shown() == ["half"]


def test_theme_button_turns_the_colours(page: Any) -> None:
    def paper() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    before = paper()
    page.find_element("id", "theme").click()
    assert paper() != before
    page.find_element("id", "theme").click()
    assert paper() == before


def test_theme_follows_the_system(page: Any) -> None:
    papers = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        papers.append(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(251, 251, 250)", "rgb(20, 23, 27)"]


def test_nothing_sticks_out_on_a_phone(page: Any) -> None:
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    widths = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [360, 360]


def test_every_interactive_part_has_a_name(page: Any) -> None:
    nameless = page.execute_script(
        """return [...document.querySelectorAll("a, button, select, summary, [tabindex]")].filter(part =>
        !(part.getAttribute("aria-label") || part.textContent.trim() || part.labels?.length)).length"""
    )
    assert nameless == 0


def test_main_table_fits_a_desktop_and_what_scrolls_on_a_phone_says_so(page: Any) -> None:
    page.set_window_size(1280, 900)
    table = page.find_element("css selector", '[aria-label="Table: variants"]')
    hint = table.find_element("xpath", "preceding-sibling::p[1]")
    measure = "return arguments[0].scrollWidth <= arguments[0].clientWidth"
    assert page.execute_script(measure, table)
    assert not hint.is_displayed()
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert not page.execute_script(measure, table)
    assert hint.text == "Scroll sideways to see the rest →"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_variants_are_whole_in_the_chart_of_switches(browser: Any, tmp_path: Path, width: int) -> None:
    text = json.dumps(REPLAY).replace('"half"', '"MobileNetV2-ratio-08"').replace('"tiny"', '"level-03.pruned"')
    path = tmp_path / "report.html"
    path.write_text(render_page(Evidence("names", replay=json.loads(text))))
    screen = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())
    ticks = browser.execute_script(
        "return [...document.querySelectorAll('.scroll svg .tick')].map(tick => [tick.textContent, tick.getBBox().x])"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert {"MobileNetV2-ratio-08", "level-03.pruned"} <= {name for name, _ in ticks}
    assert min(left for _, left in ticks) >= 0
