"""The error that every part of onnx-shift raises when it refuses its input.

This module, `onnx_shift.files` and `onnx_shift.version` are leaves: they import the standard library alone, and every
part may import them.
"""

from collections.abc import Callable


class OnnxShiftError(Exception):
    """An expected refusal: one line that names the file, node, tensor or parameter at fault.

    `{name}` in `message` stands for the parameter of that name among `parameters`, shown as name=value, or by its name
    alone where the value is None. The command line shows the option instead, prints `error: …` and exits with status 1.
    Each part derives its own kinds.
    """

    def __init__(self, message: str = "", **parameters: object) -> None:
        super().__init__(message)
        self.message, self.parameters = message, parameters

    def told(self, show: Callable[[str, object], str]) -> str:
        """The message, each parameter in it as `show` gives it."""
        text = self.message
        for name, value in self.parameters.items():
            text = text.replace(f"{{{name}}}", show(name, value))
        return text

    def __str__(self) -> str:
        return self.told(lambda name, value: name if value is None else f"{name}={value}")


def first_line(error: BaseException, *, kind: bool = False, without: tuple[str, ...] = ()) -> str:
    """The first line of what `error` says that is not blank nor begins with one of `without`, with `kind` behind its
    kind; else its kind alone.
    """
    name, said = type(error).__name__, [line.strip() for line in str(error).splitlines()]
    lines = [line for line in said if line and not line.startswith(without)]
    if not lines:
        return name
    return f"{name}: {lines[0]}" if kind else lines[0]


def one_line(error: BaseException) -> str:
    """All that `error` says, on one line; its kind alone where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
