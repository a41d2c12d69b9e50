"""An IOBinding that survives a switch."""

from typing import Any

import onnxruntime as ort

_RECORDED = ("bind_cpu_input", "bind_input", "bind_ortvalue_input", "bind_output", "bind_ortvalue_output")


class Binding:
    """Offers what `onnxruntime.IOBinding` does, for whichever session runs next.

    An IOBinding belongs to one session for good. This one notes what was bound to each name, and binds it
    again when another session is to run. Not safe from several threads at once, like IOBinding.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._bound: dict[tuple[bool, str], tuple[str, tuple[Any, ...], dict[str, Any]]] = {}
        self._session = session
        self._binding = session.io_binding()

    def to(self, session: ort.InferenceSession) -> ort.IOBinding:
        """Return onnxruntime's own binding for `session`, with everything bound."""
        if session is not self._session:
            self._session, self._binding = session, session.io_binding()
            for method, args, kwargs in self._bound.values():
                getattr(self._binding, method)(*args, **kwargs)
        return self._binding

    def clear_binding_inputs(self) -> None:
        self._clear(is_input=True)
        self._binding.clear_binding_inputs()

    def clear_binding_outputs(self) -> None:
        self._clear(is_input=False)
        self._binding.clear_binding_outputs()

    def _clear(self, *, is_input: bool) -> None:
        self._bound = {key: call for key, call in self._bound.items() if key[0] is not is_input}

    def __getattr__(self, method: str) -> Any:
        if method not in _RECORDED:
            return getattr(self._binding, method)

        def bind(name: str, *args: Any, **kwargs: Any) -> None:
            getattr(self._binding, method)(name, *args, **kwargs)
            self._bound["input" in method, name] = (method, (name, *args), kwargs)

        return bind
