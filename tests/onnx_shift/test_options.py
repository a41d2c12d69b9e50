"""Parameters as options of the command line."""

import pytest

from onnx_shift.errors import OnnxShiftError
from onnx_shift.options import as_option


@pytest.mark.parametrize(
    ("parameters", "library", "command"),
    [
        ({"max_variants": 0}, "max_variants=0", "--max-variants 0"),
        ({"verify": False}, "verify=False", "--no-verify"),
        ({"keep_all": True}, "keep_all=True", "--keep-all"),
        ({"metrics": ["size", "macs"]}, "metrics=['size', 'macs']", "--metric size --metric macs"),
        ({"input_shapes": None}, "input_shapes", "--shape"),
    ],
)
def test_errors_name_parameters_and_the_command_line_options(
    parameters: dict[str, object], library: str, command: str
) -> None:
    (name,) = parameters
    error = OnnxShiftError(f"a {{b}}: see {{{name}}}", **parameters)
    assert str(error) == f"a {{b}}: see {library}"
    assert error.told(as_option) == f"a {{b}}: see {command}"
