"""What the server refuses, and with which HTTP status."""

from onnx_shift.errors import OnnxShiftError

_SHOWN_CHARACTERS = 80


class RequestError(OnnxShiftError):
    """A request that is not answered with outputs: its HTTP status, and one line that says why. `unread`: its body has
    not come whole, so that its connection is of no more use.
    """

    def __init__(self, status: int, message: str, *, unread: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.unread = unread


def shown(value: object) -> str:
    """Return `value` as a message may repeat it: what a client sent can be long, and anything."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
