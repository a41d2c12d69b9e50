"""The error that every part of onnx-shift raises when it refuses its input.

This module, `onnx_shift.files` and `onnx_shift.version` are leaves: they import the standard library alone, and every
part may import them.
"""


class OnnxShiftError(Exception):
    """An expected refusal: one line that names the file, node, tensor or option at fault.

    The command line prints it as `error: …` and exits with status 1. Each part derives its own kinds.
    """
