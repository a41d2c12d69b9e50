"""Making a variant ready to serve: its content, optimised once per device, inflated, built and warm."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from onnx_shift.errors import one_line
from onnx_shift.ort import BUILD_ERRORS, ORT_ERRORS
from onnx_shift.runtime import cache as device_cache
from onnx_shift.runtime import kernels
from onnx_shift.runtime.content import TENSOR_TYPES, Content
from onnx_shift.runtime.errors import PortfolioError, SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Signature, Variant
from onnx_shift.runtime.session import OptionsSource, Providers, build_optimised_session, build_session

ArraySpec = tuple[tuple[int, ...], np.dtype[Any]]
_NUMPY_TYPES = {"float": "float32", "double": "float64"}  # the two whose names differ in onnxruntime


class Built(NamedTuple):
    """A session of a variant, and what each step to it took."""

    session: ort.InferenceSession
    prepare_ms: float  # optimising its graph, once per device
    inflate_ms: float
    build_ms: float
    warmup_ms: float
    inflated_bytes: int


class Builder:
    """Builds sessions of a portfolio's variants, all with the same options and providers.

    `cache_folder` keeps graphs optimised on this device; None: in memory only.
    """

    def __init__(
        self,
        portfolio: Portfolio,
        options: OptionsSource,
        providers: Providers,
        cache_folder: Path | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._portfolio = portfolio
        self._options = options
        self._providers = providers
        self._cache_folder = cache_folder
        self._clock = clock
        self._keys: dict[str, str | None] = {}  # cache key by variant; None: it cannot be optimised ahead
        self._contents: dict[str, Content] = {}  # what was found or made, whatever the portfolio lets go
        self._checked: set[str] = set()  # variants whose CRC-32 was compared once
        self._take_from_cache()

    @property
    def portfolio(self) -> Portfolio:
        """Whose variants it builds."""
        return self._portfolio

    def build(self, variant: Variant, *, threads: int, shapes: Mapping[str, ArraySpec] | None) -> Built:
        """Return the variant's session, inflated by `threads` threads and warm for inputs of `shapes`.

        Raises SwitchError when it cannot be made ready.
        """
        times = [self._clock()]
        with _refusal(variant):
            content, optimised = self._content(variant, threads)
            times.append(self._clock())
            model, arrays = content.inflate(threads, check=variant.name not in self._checked)
            times.append(self._clock())
            self._checked.add(variant.name)
            options = self._options.fresh()
            if content.kernels:
                kernels.register(options)
            if optimised:
                session = build_optimised_session(model, arrays, options, self._providers, prepack=content.prepack)
            else:
                session = build_session(model, arrays, options, self._providers)
            times.append(self._clock())
            self._refuse_other_signature(session)
            self._warm_up(session, shapes)
            times.append(self._clock())
        prepare, inflate, build_time, warmup = ((end - begin) * 1e3 for begin, end in pairwise(times))
        return Built(session, prepare, inflate, build_time, warmup, content.inflated_bytes)

    def prepare(self, variant: Variant, *, threads: int) -> None:
        """Do what reads or writes files, so that `build` will not. Raises SwitchError as `build` does."""
        with _refusal(variant):
            self._content(variant, threads)

    def _take_from_cache(self) -> None:
        """Take every variant's optimised content that this device has, in place of the portfolio's."""
        options = self._options.fresh()
        plain = options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for variant in self._portfolio.variants:
            if plain or not self._providers.optimises_once:
                self._keys[variant.name] = None
                continue
            key = self._keys[variant.name] = device_cache.cache_key(variant.sha256, options, self._providers)
            content = self._portfolio.prepared(variant.name, key)
            if content is None and self._cache_folder is not None:
                content = device_cache.load(self._cache_folder, key)
                if content is not None:
                    self._portfolio.keep_prepared(variant.name, key, content)
            if content is not None:
                self._contents[variant.name] = content

    def _content(self, variant: Variant, threads: int) -> tuple[Content, bool]:
        """Return what the variant's session is built from, and whether its graph is optimised already."""
        if variant.name not in self._contents:
            self._contents[variant.name] = self._find_content(variant, threads)
        return self._contents[variant.name], self._keys[variant.name] is not None

    def _find_content(self, variant: Variant, threads: int) -> Content:
        key = self._keys[variant.name]
        prepared = None if key is None else self._portfolio.prepared(variant.name, key)
        if prepared is not None:
            return prepared
        original = self._portfolio.content(variant.name)
        if key is None:
            return original
        model, arrays = original.inflate(threads, check=True)
        from onnx_shift.runtime.optimise import optimise

        content = optimise(model, arrays, self._options.fresh, self._providers, self._portfolio.inputs)
        if content is None:
            self._keys[variant.name] = None
            return original
        if self._cache_folder is not None:
            device_cache.store(self._cache_folder, key, content)
        self._portfolio.keep_prepared(variant.name, key, content)
        return content

    def _refuse_other_signature(self, session: ort.InferenceSession) -> None:
        for kind, stated, found in (
            ("inputs", self._portfolio.inputs, session.get_inputs()),
            ("outputs", self._portfolio.outputs, session.get_outputs()),
        ):
            names = [value.name for value in found]
            if names != [value.name for value in stated]:
                raise PortfolioError(f"its {kind} are {', '.join(names)}, not those that the manifest states")
            for value, signature in zip(found, stated, strict=True):
                tensors = value.type.startswith("tensor") and signature.type.startswith("tensor")
                if tensors and value.type != signature.type:
                    raise PortfolioError(f"{value.name} is a {value.type}, not the {signature.type} of the manifest")

    def _warm_up(self, session: ort.InferenceSession, shapes: Mapping[str, ArraySpec] | None) -> None:
        """Run once on zeros, where a first run takes much longer than others.

        On the CPU it takes a tenth longer: there a run for nothing would cost ten times what it saves.
        """
        if not self._providers.slow_at_first:
            return
        if shapes is not None:
            session.run(None, {name: np.zeros(*shape) for name, shape in shapes.items()})
            return
        guess = smallest_shapes(self._portfolio.inputs)
        if guess is not None:
            with suppress(*ORT_ERRORS):  # free dimensions of 1 may not suit the model
                session.run(None, {name: np.zeros(*shape) for name, shape in guess.items()})


@contextmanager
def _refusal(variant: Variant) -> Iterator[None]:
    """Turn whatever keeps `variant` from being made ready into a SwitchError."""
    try:
        yield
    except BUILD_ERRORS as error:
        raise SwitchError(f"{variant.name}: cannot be made ready ({one_line(error)})") from error


def smallest_shapes(inputs: Sequence[Signature]) -> dict[str, ArraySpec] | None:
    """Return shape and type of each input, free dimensions 1; None where an input is no numeric tensor."""
    shapes = {}
    for signature in inputs:
        name = signature.type.removeprefix("tensor(").removesuffix(")")
        type_ = _NUMPY_TYPES.get(name, name)
        if type_ not in TENSOR_TYPES:
            return None
        shapes[signature.name] = (
            tuple(d if isinstance(d, int) else 1 for d in signature.shape),
            np.dtype(type_),
        )
    return shapes


def choose_cache_folder(cache: str | os.PathLike[str] | bool) -> Path | None:
    """The folder meant by a switcher's `cache`: True the default one, False or an empty name none."""
    if cache is True:
        return device_cache.default_folder()
    return Path(cache) if cache else None
