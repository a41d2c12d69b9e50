"""Building onnxruntime sessions over tensors already in memory, so that nothing is parsed or copied."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnxruntime as ort

from onnx_shift.ort import BUILD_ERRORS, CPU
from onnx_shift.runtime.errors import ProviderError

Options: TypeAlias = "ort.SessionOptions | Callable[[], ort.SessionOptions] | None"
Arrays = Mapping[str, np.ndarray[Any, Any]]
Provider = str | tuple[str, Mapping[str, Any]]

# The smallest model a session can be built from: ir_version 8, opset 13, y = Identity(x) over a float.
IDENTITY_MODEL = bytes.fromhex(
    "08083a310a120a017812017922084964656e746974793a00"
    "1201675a0b0a017812060a0408011200620b0a017912060a040801120042040a00100d"
)
# onnxruntime insists that the file an external tensor names exists, though it opens none whose tensor is
# given. Optimised graphs name this one: it always exists, and is empty, so that no tensor can be read from it.
EXTERNAL_FILE = Path(__file__).with_name("empty.bin")
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_DEFAULT_PROVIDERS = ("CUDAExecutionProvider", CPU)
# onnxruntime tries every algorithm for every convolution of a new session, which takes longer than the rest of a
# switch; cuDNN's own choice answers as fast.
_DEFAULT_OPTIONS = {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC"}}


class Providers(NamedTuple):
    """The execution providers of every session of a switcher, in order of preference, with their options."""

    names: tuple[str, ...]
    options: tuple[Mapping[str, str], ...]

    @property
    def slow_at_first(self) -> bool:
        """Whether a session's first run does more than run: copies weights, chooses or compiles kernels."""
        return self.names != (CPU,)

    @property
    def only_cpu(self) -> bool:
        """Whether nothing but the CPU computes: there our kernels may stand in."""
        return self.names == (CPU,)

    @property
    def optimises_once(self) -> bool:
        """Whether a graph optimised under them may be used again: others compile or fuse on their own."""
        return set(self.names) <= {CPU, "CUDAExecutionProvider"}


def choose_providers(
    providers: Sequence[Provider] | None, provider_options: Sequence[Mapping[str, Any]] | None = None
) -> Providers:
    """Return those of the providers asked for that work here; by default CUDA where there is one, then the
    CPU.

    One that follows another is its named fallback. Raises ProviderError where none of those asked for works.
    """
    asked = _with_options(providers or _DEFAULT_PROVIDERS, provider_options)
    refused = {name: _refusal(name, options) for name, options in asked.items()}
    usable = {name: options for name, options in asked.items() if not refused[name]}
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ProviderError(f"{reasons}; name another provider after it as the fallback")
    return Providers(tuple(usable), tuple(usable.values()))


def _refusal(name: str, options: Mapping[str, str]) -> str:
    """Return why a provider does not work here, or nothing.

    One may be built in and still not start, without its device, driver or libraries; a session of one node tells.
    """
    available = ort.get_available_providers()
    if name not in available:
        return f"not available in this onnxruntime {ort.__version__}, which has {', '.join(available)}"
    if name == CPU:
        return ""
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 4
    try:
        session = ort.InferenceSession(IDENTITY_MODEL, quiet, providers=[(name, dict(options))], enable_fallback=False)
    except BUILD_ERRORS as error:
        # Before the reason stand the files and functions of onnxruntime that it went through.
        reason = " ".join(str(error).split()).rpartition(" : FAIL : ")[2]
        return f"does not start here ({reason})"
    return "" if name in session.get_providers() else "does not start here (its device, driver or libraries)"


def _with_options(
    providers: Sequence[Provider], provider_options: Sequence[Mapping[str, Any]] | None
) -> dict[str, dict[str, str]]:
    if isinstance(providers, str):
        raise ProviderError(f"providers={providers!r}: give a list of names, such as [{providers!r}]")
    extra = provider_options or [{}] * len(providers)
    if len(extra) != len(providers):
        raise ProviderError(f"{len(providers)} providers, but {len(extra)} provider_options")
    return dict(_named(provider, more) for provider, more in zip(providers, extra, strict=True))


def _named(provider: Provider, more: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    try:
        name, options = (provider, {}) if isinstance(provider, str) else provider
        chosen = {**_DEFAULT_OPTIONS.get(name, {}), **options, **more}
        return name, {key: str(value) for key, value in chosen.items()}
    except (TypeError, ValueError) as error:
        raise ProviderError(
            f"provider {provider!r} with options {more!r}: give a name, or a pair of name and options"
        ) from error


class OptionsSource:
    """Gives each session a fresh copy of the caller's session options, because building one adds to them.

    onnxruntime copies the options into a session, and gives them back: a session of one node is the copier.
    What it does not give back, libraries of custom operators, needs a function that makes the options.
    """

    def __init__(self, options: Options) -> None:
        if options is not None and not callable(options) and not isinstance(options, ort.SessionOptions):
            raise TypeError(f"sess_options: a SessionOptions, or a function that makes them, not {options!r}")
        self._make = options if callable(options) else ort.SessionOptions
        self._profiles = False
        if isinstance(options, ort.SessionOptions):
            given, self._profiles = _copy_without_files(options), options.enable_profiling
            self._make = lambda: _copy(given)

    def fresh(self) -> ort.SessionOptions:
        """Return options that nobody else holds."""
        options = self._make()
        options.optimized_model_filepath = ""
        if self._profiles:
            options.enable_profiling = True
        return options


def _copy_without_files(options: ort.SessionOptions) -> ort.SessionOptions:
    """Copy `options` less the files that they ask for: the copier would write them, too."""
    path, profiles = options.optimized_model_filepath, options.enable_profiling
    options.optimized_model_filepath, options.enable_profiling = "", False
    try:
        return _copy(options)
    finally:
        options.optimized_model_filepath, options.enable_profiling = path, profiles


def _copy(options: ort.SessionOptions) -> ort.SessionOptions:
    session = ort.InferenceSession(IDENTITY_MODEL, options, providers=[CPU])
    return session.get_session_options()


def build_session(
    model: bytes, arrays: Arrays, options: ort.SessionOptions, providers: Providers
) -> ort.InferenceSession:
    """Return a session over `model`, its initializers named in `arrays` taken from there, optimised as
    `options` say.

    onnxruntime may copy the arrays or point into them; the session keeps them. `options` are used up. Raises
    one of BUILD_ERRORS.
    """
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    if values:
        options.add_external_initializers(list(arrays), values)
    return _session(model, options, providers, values)


def build_optimised_session(
    model: bytes, arrays: Arrays, options: ort.SessionOptions, providers: Providers, *, prepack: bool = True
) -> ort.InferenceSession:
    """Return a session over a `model` that is optimised already; see `build_session`. Without `prepack` weights are
    used as they lie, where operators would have kept a copy laid out for themselves.

    On the CPU it reads the very `arrays`, which the session keeps: nothing is copied, and a model of 59 MB is
    ready in 1 ms where `add_external_initializers`, which copies (onnxruntime 1.32), takes 10 to 30.
    """
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if providers.slow_at_first:  # there the weights have to be copied to the device anyway
        return build_session(model, arrays, options, providers)
    options.add_session_config_entry(_EXTERNAL_FOLDER, str(EXTERNAL_FILE.parent))
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    for name, value in values.items():
        options.add_initializer(name, value)
    return _session(model, options, providers, [*values.values(), *arrays.values()])


def _session(
    model: bytes, options: ort.SessionOptions, providers: Providers, memory: Sequence[Any]
) -> ort.InferenceSession:
    session = ort.InferenceSession(
        model,
        options,
        providers=list(providers.names),
        provider_options=[dict(chosen) for chosen in providers.options],
        enable_fallback=False,
    )
    session.onnx_shift_memory = memory  # onnxruntime holds bare addresses: the memory must live as long as the session
    return session
