"""The commands profile, inspect and report, as a user types them."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.errors import OnnxShiftError
from onnx_shift.portfolio.evaluation import evaluation
from onnx_shift.views.tables import profile_notes, profile_tables


def shift(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnx_shift", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def _network(path: Path, channels: int, **metadata: str) -> Path:
    """A network for the digits: a convolution of this many channels, every other one without weights."""
    body = "c = Conv<pads = [1,1,1,1]>(input, w)\n a = Relu(c)\n p = GlobalAveragePool(a)\n f = Flatten(p)"
    text = (
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,1,8,8] input) => (float[N,10] logits) '
        f"{{ {body}\n logits = Gemm<transB = 1>(f, v, b) }}"
    )
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(channels)
    for name, shape in (("w", (channels, 1, 3, 3)), ("v", (10, channels)), ("b", (10,))):
        values = generator.standard_normal(shape).astype(np.float32)
        if name == "w":
            values[::2] = 0
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for key, value in metadata.items():
        model.metadata_props.add(key=f"onnx_shift.{key}", value=value)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [_network(folder / "dense.onnx", 64, ratio="1"), _network(folder / "small.onnx", 16, ratio="4")]


def test_profile_on_real_images_writes_json_and_tables(models: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    options = ["--data", "digits", "--seconds", "0.05", "--batch", "1", "--batch", "4", "-o", output]
    done = shift("profile", *models, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert list(found["variants"]) == ["dense", "small"]
    assert found["dense"] == "dense"
    entry = found["variants"]["small"]
    assert entry["images"] == 359
    assert entry["classes"] == 10
    assert 0 <= entry["accuracy"] <= entry["top5"] <= 1
    assert entry["switch_ms"] > 0
    assert entry["memory_mb"] is None or entry["memory_mb"] < 50
    lines = done.stdout.splitlines()
    # Eighty columns on a quiet machine; a spread over tens of milliseconds has more digits.
    assert max(len(line) for line in lines if "small" in line) <= 92
    assert sum("small" in line for line in lines) >= 4  # sizes, a row for each batch size, and memory
    assert "accuracy: of 359 test images" in lines


def test_profile_as_json_alone_on_stdout(models: list[Path]) -> None:
    done = shift("profile", models[1], "--seconds", "0.01", "--json")
    assert json.loads(done.stdout)["variants"]["small"]["macs"] == 16 * 9 * 64 + 160


def test_inspect_tells_zeros_and_channels_of_a_model(models: list[Path]) -> None:
    done = shift("inspect", models[1], "--json")
    found = json.loads(done.stdout)
    assert found["parameters"] == 16 * 9 + 160 + 10
    assert [(layer["channels"], layer["zero_channels"]) for layer in found["layers"]] == [(16, 8), (10, 0)]
    assert found["layers"][0]["zeros"] == 0.5
    assert found["metadata"] == {"onnx_shift.ratio": "4"}
    assert found["opset"] == 13
    text = shift("inspect", models[1]).stdout
    assert "16×1×3×3" in text
    assert "8 of 16" in text
    assert "input float[N, 1, 8, 8] -> logits float[N, 10]" in text


def test_inspect_shows_weights_that_are_stored_in_integers(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,2,8,8] x) => (float[N,4,6,6] y) '
        "<float s = {0.5}> { wide = DequantizeLinear(w, s) y = Conv(x, wide) }"
    )
    values = np.ones((4, 2, 3, 3), np.int8)
    values[1] = 0
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    onnx.save(model, tmp_path / "quantised.onnx")
    found = json.loads(shift("inspect", tmp_path / "quantised.onnx", "--json").stdout)
    (layer,) = found["layers"]
    assert (layer["parameters"], layer["zeros"], layer["zero_channels"]) == (72, 0.25, 1)
    assert found["parameters"] == 73


def test_a_narrow_terminal_breaks_lines_and_cuts_no_figure(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = shift("inspect", models[0]).stdout
    monkeypatch.setenv("COLUMNS", "30")
    assert shift("inspect", models[0]).stdout == wide
    assert "64×1×3×3     576  50.00%  32 of 64" in wide


def test_report_of_a_folder(models: list[Path], tmp_path: Path) -> None:
    assert shift("profile", *models, "--seconds", "0.01", "-o", tmp_path / "profile.json").returncode == 0
    done = shift("report", tmp_path, "-o", tmp_path / "report.html")
    assert done.stdout == f"wrote {tmp_path / 'report.html'}\n"
    assert ">Variants<" in (tmp_path / "report.html").read_text()  # nothing was chosen: accuracy was not measured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "none.onnx"], "none.onnx: no such file"),
        (["profile", "MODEL", "--provider", "Abacus"], "provider Abacus: not in this onnxruntime"),
        (["profile", "MODEL", "--data", "no/such/set"], "no/such/set"),
        (["profile", "MODEL", "--data", "digits", "--mean", "0.5"], "--mean and --std belong together"),
        (["profile", "MODEL", "--data", "digits", "--mean", "a", "--std", "1"], "--mean a: give numbers"),
        (["profile", "MODEL", "--shape", "input"], "--shape input: give an input's name and its axes"),
        (["profile", "MODEL", "--seconds", "0.01", "-o", "no/folder/p.json"], "no/folder/p.json"),
        (["inspect", "none.onnx"], "none.onnx"),
        (["report", "none.zip"], "none.zip"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(models: list[Path], arguments: list[str], message: str) -> None:
    done = shift(*[str(models[1]) if argument == "MODEL" else argument for argument in arguments])
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def refusal(*arguments: object) -> str:
    """What the command, run in this process, is refused with."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, OnnxShiftError), result.output
    return str(result.exception)


def _images(path: Path, labels: list[Any], size: int = 8) -> Path:
    """A parquet file of grey images, each as bright as its number."""
    import datasets

    cells = []
    for number in range(len(labels)):
        buffer = io.BytesIO()
        Image.new("L", (size, size), number).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    datasets.Dataset.from_dict({"image": cells, "label": labels}).to_parquet(str(path))
    return path


def _two_inputs(path: Path) -> Path:
    text = (
        '<ir_version: 8, opset_import: ["" : 13]> g (float[N,1,8,8] a, float[N,1,8,8] b) => (float[N,64] y) '
        "{ s = Add(a, b)\n y = Flatten(s) }"
    )
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def _free(path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["" : 13]> g (float[N,C] a) => (float[N,C] y) { y = Relu(a) }'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_what_profile_would_stumble_over_is_refused_beforehand(models: list[Path], tmp_path: Path) -> None:
    dense, small = models
    other = shutil.copy(small, tmp_path / "small.onnx")
    smaller = shutil.copy(small, tmp_path / "smaller.onnx")
    assert refusal("profile", smaller) == (
        f"{smaller}: a variant cannot be called 'smaller', which switch() takes for a direction"
    )
    for absent in (other, tmp_path / "none" / "small.onnx"):
        assert refusal("profile", dense, small, "--dense", absent) == (
            f"--dense {absent}: is none of the models to profile"
        )
    free = _free(tmp_path / "free.onnx")
    assert refusal("profile", free).startswith(f"{free}: input a: axis 1 of (N,C) is free")
    assert refusal("profile", free).endswith("--shape")


def test_a_model_that_does_not_run_is_refused_beforehand(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,H,H] x) => (float[N,12] y)'
        " <int64[2] to = {-1, 12}> { y = Reshape(x, to) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fits.onnx")
    done = shift("profile", tmp_path / "fits.onnx", "--shape", "x=1,3,5,5")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'fits.onnx'}: onnxruntime does not run it on x of shape (1, 3, 5, 5)"
    )
    assert done.stderr.endswith("; see --shape\n")


def test_data_that_do_not_fit_the_model_are_refused_beforehand(models: list[Path], tmp_path: Path) -> None:
    two = _two_inputs(tmp_path / "two.onnx")
    assert refusal("profile", two, "--data", "digits") == (
        f"--data digits: {two}: has 2 inputs (a, b), images are but one"
    )
    large = _images(tmp_path / "large.parquet", [0, 1] * 5, size=9)
    assert refusal("profile", models[1], "--data", large).startswith(
        f"--data {large}: {models[1]}: does not take images of 1×9×9 as "
    )
    twenty = _images(tmp_path / "twenty.parquet", list(range(20)))
    assert refusal("profile", models[1], "--data", twenty) == (
        f"--data {twenty}: {models[1]}: tells 10 classes apart, images are labelled up to 19"
    )
    named = _network(tmp_path / "named.onnx", 4, class_names=json.dumps([*"abcdefghij"]))
    strange = _images(tmp_path / "strange.parquet", ["a", "z"] * 5)
    assert refusal("profile", named, "--data", strange) == (
        f"{strange}: its class z is none of the classes that {named} names"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "0.5", "--std", "0"], "--std 0: must be above 0 and finite"),
        (["--mean", "nan", "--std", "1"], "--mean nan: must be finite"),
        (["--mean", "0.5,0.5", "--std", "1"], "--mean and --std belong together: 2 numbers and 1"),
        (["--mean", "0.5,0.5,0.5", "--std", "1,1,1"], "have 3 numbers, the images of digits 1 channel"),
        (["--image-size", "16"], "digits: are built in, 8x8 pixels: --image-size"),
        (["--image-column", "x"], "digits: are built in, 8x8 pixels: --image-size"),
    ],
)
def test_options_of_the_images_are_checked(models: list[Path], options: list[str], message: str) -> None:
    assert message in refusal("profile", models[1], "--data", "digits", *options)


@pytest.mark.parametrize("content", [b"no parquet", b""])
def test_a_broken_data_set_is_one_line_on_stderr(models: list[Path], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.txt").write_bytes(content)
    done = shift("profile", models[1], "--data", tmp_path / "data.txt")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'data.txt'}: cannot be opened as a data set")


def _labels(data: Path, *models: Path) -> list[list[int]]:
    found = evaluation(str(data), models).batches
    return [[int(label) for _, labels in found[model]() for label in labels] for model in models]


def test_the_only_split_is_all_test_images_unless_train_had_it(models: list[Path], tmp_path: Path) -> None:
    plain, trained = models[1], _network(tmp_path / "trained.onnx", 4, recipe_hash="abc")
    (tmp_path / "photos").mkdir()
    test = _images(tmp_path / "photos" / "test.parquet", [0, 1] * 10)
    other = _images(tmp_path / "photos" / "other.parquet", [0, 1] * 10)
    counts = {
        (data.stem, model.stem): len(_labels(data, model)[0]) for data in (test, other) for model in (plain, trained)
    }
    assert counts == {
        ("test", "small"): 20, ("other", "small"): 20, ("test", "trained"): 20, ("other", "trained"): 4,
    }  # fmt: skip
    assert evaluation(str(test), [plain]).note == f"{test} has one split: all 20 images are test images"
    assert "accuracy is that of the 4 images which train holds out" in (evaluation(str(other), [trained]).note or "")


def test_classes_are_found_by_name_and_images_normalised_for_each_model(tmp_path: Path) -> None:
    def normalised(mean: float, std: float) -> str:
        return json.dumps({"mean": [mean], "std": [std]})

    names = [*"jihgfedcba"]
    one = _network(tmp_path / "one.onnx", 4, normalisation=normalised(0, 1), class_names=json.dumps(names))
    two = _network(tmp_path / "two.onnx", 4, normalisation=normalised(0.5, 0.1))
    data = _images(tmp_path / "test.parquet", ["a", "b", "c"])
    assert sorted(_labels(data, one)[0]) == [7, 8, 9]
    assert sorted(_labels(data, two)[0]) == [0, 1, 2]
    found = evaluation(str(data), [one, two]).batches
    pixels = [np.sort(np.concatenate([images for images, _ in found[m]()])[:, 0, 0, 0]) for m in (one, two)]
    assert np.allclose(pixels[0], np.array([0, 1, 2]) / 255)
    assert np.allclose(pixels[1], (pixels[0] - 0.5) / 0.1, atol=1e-5)


def test_columns_of_the_images_can_be_named(models: list[Path], tmp_path: Path) -> None:
    import datasets

    path = _images(tmp_path / "test.parquet", [0, 1, 2])
    table = datasets.Dataset.from_parquet(str(path)).rename_column("label", "a").add_column("b", [5, 6, 7])
    table.to_parquet(str(path))
    assert "name one with --label-column" in refusal("profile", models[1], "--data", path)
    found = evaluation(str(path), models, image_column="image", label_column="b")
    assert sum(len(labels) for _, labels in found.batches[models[0]]()) == 3


def _profile(*, switch_ms: float | None, variants: int = 2) -> dict[str, Any]:
    def measured(p50: float, noisy: bool, memory: float) -> dict[str, Any]:
        latency = {"p50": p50, "p95": 2 * p50, "p99": 3 * p50, "spread": 0.234, "noisy": noisy}
        return {
            "latency_ms": {"1": latency}, "speedup": {"1": {"median": 1.5, "low": 1.25, "high": 12.75}},
            "throughput": 1234.5, "memory_mb": memory, "peak_memory_mb": 2 * memory,
        }  # fmt: skip

    entry = {
        "ratio": 256.04, "accuracy": 0.9123, "top5": 0.9876, "parameters": 123456789, "macs": 123456789,
        "file_bytes": 123456789, "deflated_bytes": 123456789, "switch_ms": switch_ms, "images": 359,
        "providers": {"CUDAExecutionProvider": measured(0.0123, True, 33.3)},
    }  # fmt: skip
    return {
        "machine": {
            "processor": "P", "cores": 2, "onnxruntime": "1.2", "threads": 1, "date": "2024-05-06",
            "providers": ["CPUExecutionProvider", "CUDAExecutionProvider"],
        },
        "baseline": {"name": "dense"},
        "variants": {f"level-0{n}[v2]": entry | measured(0.777, False, 44.4) for n in range(variants)},
    }  # fmt: skip


def test_tables_show_all_that_was_measured_in_eighty_columns() -> None:
    console = Console(width=80, markup=False, force_terminal=False)
    with console.capture() as captured:
        for table in profile_tables(_profile(switch_ms=1.23)):
            console.print(table)
    text = captured.get()
    assert text.count("level-01[v2]") == 5  # what it is; for each provider how fast, and what it takes
    figures = ["98.76%", "88.8 MB", "66.6 MB", "~0.0123", "0.777", "23%", "1.25–12.75", "1,234", "1.2 ms"]
    assert [figure for figure in figures if figure not in text] == []
    assert "CUDAExecutionProvider" in text


def test_notes_say_what_signs_mean_and_why_no_switch_was_timed() -> None:
    notes = "\n".join(profile_notes(_profile(switch_ms=1.23)))
    assert "~: rounds lay far apart even when repeated: level-00[v2], level-01[v2]" in notes
    assert "switch" not in notes
    assert "switch: not measured, as their inputs or outputs differ" in profile_notes(_profile(switch_ms=None))
    single = profile_notes(_profile(switch_ms=None, variants=1))
    assert "switch: not measured, as a single model has none to switch from" in single


def test_pack_tells_the_search_efficiency_and_the_profile_at_fault(models: list[Path], tmp_path: Path) -> None:
    profile, portfolio = tmp_path / "profile.json", tmp_path / "p.zip"
    entry = {"latency_ms": {"1": {"p50": 1.0}}, "file_bytes": 1000, "accuracy": 0.9, "ratio": 1}
    profile.write_text(json.dumps({"variants": {"dense": entry, "small": entry | {"accuracy": 0.5}}}))
    done = CliRunner().invoke(app, ["pack", *map(str, models), "-o", str(portfolio), "--profile", str(profile)])
    assert "search efficiency 50%: 1 of 2 variants are Pareto-optimal in accuracy, latency, size" in done.output
    options = ["--profile", str(profile), "--metric", "size", "--json"]
    done = CliRunner().invoke(app, ["pack", str(models[0]), "-o", str(portfolio), *options])
    found = json.loads(done.stdout)
    assert (found["efficiency"], found["metrics"], found["dropped"]) == (1.0, ["size"], {})
    free = _free(tmp_path / "level-01.onnx")
    assert refusal("pack", free, "-o", portfolio, "--profile", profile) == (
        f"{profile}: does not list level-01; profile all models in one run"
    )


def test_a_policy_of_the_working_folder_serves_and_a_refused_replay_leaves_no_folder(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "night_policy.py").write_text(
        "class NightShift:\n    interval_s = 0.1\n    def decide(self, load):\n        return 'smaller'\n"
        "def night_shift(objective_ms):\n    return NightShift()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    assert CliRunner().invoke(app, ["pack", *map(str, models), "-o", "p.zip"]).exit_code == 0
    replay = ["replay", "p.zip", "--duration", "1", "--trace", "step"]
    done = CliRunner().invoke(app, [*replay, "--policy", "night_policy:night_shift", "--json"])
    assert set(json.loads(done.stdout)["runs"]) >= {"policy", "smallest", "largest"}
    assert "--policy night_policy:NightShift: makes no policy (TypeError" in refusal(
        *replay, "--policy", "night_policy:NightShift", "-o", "out"
    )
    assert "objective of 0 ms" in refusal(*replay, "--objective", "0", "-o", "out")
    assert not (tmp_path / "out").exists()
