"""Where the commands write: results to stdout, progress and remarks to stderr."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from onnx_shift.errors import OnnxShiftError
from onnx_shift.files import is_standard_output

# Names of files and tensors are printed as they are: [v2] is no markup, :o: no emoji.
out = Console(soft_wrap=True, markup=False, emoji=False)  # results
log = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)  # progress and remarks


def print_json(value: Any) -> None:
    """Write `value` as JSON on stdout, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def results_beside(output: Path, as_json: bool = False) -> None:
    """Where `output` is standard output, let all else that is said go to stderr. Raises OnnxShiftError with JSON."""
    if is_standard_output(output):
        if as_json:
            raise OnnxShiftError("--json: cannot go to standard output together with the file written to it")
        out.stderr = True


def print_lines(*lines: str) -> None:
    """Write `lines` of a result as they are."""
    for line in lines:
        out.print(line, highlight=False)


def note(*lines: str) -> None:
    """Write remarks as they are."""
    for line in lines:
        log.print(line, highlight=False)
