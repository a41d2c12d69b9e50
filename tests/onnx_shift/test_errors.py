"""What an error says."""

from onnx_shift.errors import first_line


def test_the_first_line_of_an_error_is_never_blank() -> None:
    errors = [ValueError("\n one \ntwo"), ValueError()]
    assert [first_line(error) for error in errors] == ["one", "ValueError"]
    assert first_line(ValueError("Check 'x' failed\nno such axis"), without=("Check '",)) == "no such axis"
    assert [first_line(error, kind=True) for error in errors] == ["ValueError: one", "ValueError"]
