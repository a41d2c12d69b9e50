"""Results go to stdout, remarks to stderr, names as they are."""

import json

import pytest

from onnx_shift.console import note, print_json, print_lines


def test_results_and_remarks_go_apart_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines("net[v2] :car:", "1.5")
    note("[bold]")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("net[v2] :car:\n1.5\n", "[bold]\n")


def test_json_alone_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}
