"""What the commands check of their options themselves."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onnx_shift.cli import app
from onnx_shift.commands import inspect_file, pack_files, profile_files, today
from onnx_shift.errors import OnnxShiftError
from onnx_shift.options import as_option
from tests.onnx_shift.models import digits_network, refusal


def test_a_date_is_written_the_same_way_everywhere() -> None:
    year, month, day = today().split("-")
    assert (len(year), len(month), len(day)) == (4, 2, 2)


@pytest.mark.parametrize(
    ("reading", "data", "message"),
    [
        ({"image_size": 8}, None, "--image-size: says how the images of --data are to be read"),
        ({"mean": "a", "std": "1"}, "digits", "--mean a: give numbers separated by commas"),
    ],
)
def test_how_images_are_read_is_checked(
    tmp_path: Path, reading: dict[str, object], data: str | None, message: str
) -> None:
    model = digits_network(tmp_path / "m.onnx", 4)
    settings = {"batches": [1], "providers": ["CPUExecutionProvider"], "threads": 1, "seconds": 0.01}
    with pytest.raises(OnnxShiftError) as refused:
        profile_files(
            [model], None, dense=None, data=data, reading={"mean": None, "std": None, **reading}, shapes=[],
            as_json=True, **settings,
        )  # fmt: skip
    assert message in refused.value.told(as_option)


def test_a_metric_needs_a_profile(tmp_path: Path) -> None:
    with pytest.raises(OnnxShiftError, match="--metric size: nothing was measured to choose by"):
        pack_files([tmp_path / "m.onnx"], tmp_path / "p.zip", profile=None, metrics=["size"], as_json=False)


def test_an_accuracy_measured_elsewhere_is_given_by_file(models: list[Path]) -> None:
    profile = ["profile", models[0], "--seconds", "0.01"]
    done = CliRunner().invoke(app, [*map(str, profile), "--accuracy", f"{models[0]}=0.75", "--json"])
    assert json.loads(done.stdout)["variants"][models[0].stem]["accuracy"] == 0.75
    assert refusal(*profile, "--accuracy", "0.75") == "--accuracy 0.75: give a file and a share, such as net.onnx=0.91"
    assert refusal(*profile, "--accuracy", "b.onnx=0.75") == "--accuracy b.onnx: is none of the models to profile"
    assert refusal(*profile, "--evaluate", "nowhere:score").startswith("--evaluate nowhere:score: cannot be imported")


def test_inspect_says_that_the_kernels_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONNX_SHIFT_KERNELS", "none")
    model = digits_network(tmp_path / "m.onnx", 4)
    inspect_file(model, as_json=False, verify=False, trusted=None)
    expected = "layers with scattered zeros run as dense ones here: switched off by ONNX_SHIFT_KERNELS"
    assert expected in capsys.readouterr().out
    inspect_file(model, as_json=True, verify=False, trusted=None)
    assert json.loads(capsys.readouterr().out)["kernels_missing"] == "switched off by ONNX_SHIFT_KERNELS"
