"""`ModelSwitcher`: an InferenceSession whose model can be exchanged while requests run."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from onnx_shift.runtime import cache as device_cache
from onnx_shift.runtime.binding import Binding
from onnx_shift.runtime.errors import ClosedError, RunError, SwitchError
from onnx_shift.runtime.inflate import Buffer
from onnx_shift.runtime.portfolio import TENSOR_TYPES, Content, Portfolio, Signature, Variant
from onnx_shift.runtime.session import (
    BUILD_ERRORS,
    ORT_ERRORS,
    RUN_ERRORS,
    Arrays,
    Options,
    OptionsSource,
    Provider,
    build_optimised_session,
    build_session,
    choose_providers,
)

if TYPE_CHECKING:  # only a switcher with a policy needs them: importing the runtime stays quick
    from onnx_shift.runtime.controller import Controller
    from onnx_shift.runtime.meter import Meter
    from onnx_shift.runtime.policy import Policy

_KEPT_RECORDS = 1000
_INFLATING_THREADS = 4

_Shape = tuple[tuple[int, ...], np.dtype[Any]]
_NUMPY_TYPES = {"float": "float32", "double": "float64"}  # the two whose names differ in onnxruntime


@dataclass(frozen=True)
class SwitchRecord:
    """What one switch cost. `bytes` were inflated; `stall_ms` is how long callers of `run` were held up by
    it.

    `prepare_ms` is other than zero only when the variant's graph had to be optimised first, once per device.
    """

    previous: str
    active: str
    inflate_ms: float = 0.0
    build_ms: float = 0.0
    warmup_ms: float = 0.0
    stall_ms: float = 0.0
    bytes: int = 0
    prepare_ms: float = 0.0
    time_s: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether another variant serves now than before."""
        return self.previous != self.active

    @property
    def total_ms(self) -> float:
        """All of it, in milliseconds."""
        return self.prepare_ms + self.inflate_ms + self.build_ms + self.warmup_ms


class _Serving:
    """A session that answers requests, and how many are inside it."""

    def __init__(self, variant: Variant, session: ort.InferenceSession) -> None:
        self.variant = variant
        self.session = session
        self.requests = 0
        self.retired = False


class ModelSwitcher:
    """Serves one variant of a portfolio through the interface of `onnxruntime.InferenceSession`, and
    exchanges it.

    `run` may be called from many threads, also while `switch` is at work. `sess_options`, `providers` and
    `provider_options` mean what they mean to InferenceSession (`sess_options` may be a function that makes
    them, which custom operators need). `start` names the first variant, by default that of median size.
    `overlap=False` releases the old session before the new one is built: the least memory, but callers wait.
    A `policy` decides by itself when to switch; `waiting` tells it how many requests wait in a queue of the
    application's own. `cache` is the folder for graphs optimised on this device: True for the default
    ($ONNX_SHIFT_CACHE, else the user's cache folder), False for none. Raises ProviderError, PortfolioError or
    SwitchError.
    """

    def __init__(
        self,
        portfolio: Portfolio | str | os.PathLike[str] | Buffer,
        sess_options: Options = None,
        providers: Sequence[Provider] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        *,
        policy: "Policy | None" = None,
        overlap: bool = True,
        start: str | None = None,
        cache: str | os.PathLike[str] | bool = True,
        waiting: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pid = os.getpid()
        self._clock = clock
        self.portfolio = portfolio if isinstance(portfolio, Portfolio) else Portfolio.open(portfolio)
        self._options = OptionsSource(sess_options)
        self._providers = choose_providers(providers, provider_options)
        self._cache_folder = _cache_folder(cache)
        self._overlap = overlap
        self._keys: dict[
            str, str | None
        ] = {}  # cache key of each variant; None: it cannot be optimised ahead
        self._checked: set[str] = set()  # variants whose CRC-32 was compared once
        self._last_shapes: dict[str, _Shape] | None = None  # of the inputs of the last request
        self._records: deque[SwitchRecord] = deque(maxlen=_KEPT_RECORDS)
        self._switching = threading.RLock()  # one switch at a time
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._serving: _Serving | None = None
        self._failure: SwitchError | None = None
        self._closed = False
        self._meter: Meter | None = None
        self._controller: Controller | None = None
        self._processors = min(_INFLATING_THREADS, _processors())
        self._take_from_cache()
        variants = self.portfolio.variants
        self._active = variants[len(variants) // 2] if start is None else self._target(start)
        self._serving, _ = self._ready(self._active)
        if policy is not None:
            self._watch(policy, waiting)

    def _watch(self, policy: "Policy", waiting: Callable[[], int] | None) -> None:
        from onnx_shift.runtime.controller import Controller
        from onnx_shift.runtime.meter import Meter

        self._meter = Meter(self._clock)
        self._controller = Controller(self, policy, self._meter, waiting, self._clock)
        self._controller.start()

    # --- the interface of InferenceSession ------------------------------------------------------------------

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Answer as `InferenceSession.run` does, by the variant that was active when the call began.

        Raises RunError for a feed that the model refuses, ClosedError after `close` and in a forked child.
        """
        with self._lease() as session:
            outputs: list[Any] = session.run(output_names, input_feed, run_options)
        if self._providers.slow_at_first and all(
            isinstance(value, np.ndarray) for value in input_feed.values()
        ):
            self._last_shapes = {name: (value.shape, value.dtype) for name, value in input_feed.items()}
        return outputs

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, Any],
        run_options: Any = None,
    ) -> Sequence[Any]:
        """Answer as `InferenceSession.run_with_ort_values` does; otherwise like `run`."""
        with self._lease() as session:
            outputs: Sequence[Any] = session.run_with_ort_values(
                output_names, input_dict_ort_values, run_options
            )
            return outputs

    def io_binding(self) -> Binding:
        """Return a binding for `run_with_iobinding` that stays good when the model is switched."""
        with self._lease() as session:
            return Binding(session)

    def run_with_iobinding(self, iobinding: Binding, run_options: Any = None) -> None:
        """Answer into what is bound, as `InferenceSession.run_with_iobinding` does; otherwise like `run`."""
        with self._lease() as session:
            session.run_with_iobinding(iobinding.to(session), run_options)

    def get_inputs(self) -> list[Signature]:
        """Return name, type and shape of each input, the same for all variants."""
        return list(self.portfolio.inputs)

    def get_outputs(self) -> list[Signature]:
        """Return name, type and shape of each output, the same for all variants."""
        return list(self.portfolio.outputs)

    def get_modelmeta(self) -> SimpleNamespace:
        """Return the active model's metadata, with the attributes of onnxruntime's ModelMetadata."""
        with self._lease() as session:
            meta = session.get_modelmeta()  # a view into the session, which must not outlive it
            return SimpleNamespace(
                **{name: getattr(meta, name) for name in dir(meta) if not name.startswith("_")}
            )

    def get_providers(self) -> list[str]:
        """Return the execution providers of the active session."""
        with self._lease() as session:
            return list(session.get_providers())

    def get_provider_options(self) -> dict[str, Any]:
        """Return the options of these providers."""
        with self._lease() as session:
            return dict(session.get_provider_options())

    def get_session_options(self) -> ort.SessionOptions:
        """Return a copy of the session options that every variant is built with."""
        return self._options.fresh()

    # --- switching ------------------------------------------------------------------------------------------

    @property
    def active(self) -> Variant:
        """The variant that serves."""
        return self._active

    @property
    def session(self) -> ort.InferenceSession:
        """The active variant's own session, for what this class does not offer. Whoever holds it holds its
        memory.
        """
        with self._lease() as session:
            return session

    @property
    def records(self) -> tuple[SwitchRecord, ...]:
        """The records of the last thousand switches, oldest first."""
        return tuple(self._records)

    def switch(self, target: str | Variant) -> SwitchRecord:
        """Make `target` ("smaller", "larger", or a variant's name) the active variant; return what that cost.

        Returns when it serves. At either end, or when it is active already, nothing changes. Raises
        SwitchError when it cannot be made ready, and then the variant before still serves.
        """
        self._check_process()
        with self._switching:
            if self._closed:
                raise ClosedError("the switcher is closed")
            variant = self._target(target)
            if variant is self._active and self._failure is None:
                return SwitchRecord(variant.name, variant.name)
            record = self._switch_beside(variant) if self._overlap else self._switch_in_place(variant)
            self._records.append(record)
            return record

    def _switch_beside(self, variant: Variant) -> SwitchRecord:
        serving, record = self._ready(variant)
        began = self._clock()
        exchanged = self._publish(serving)
        return replace(record, stall_ms=(exchanged - began) * 1e3, time_s=exchanged)

    def _switch_in_place(self, variant: Variant) -> SwitchRecord:
        previous = self._active
        with _refusal(variant):
            self._content(variant)  # what can go wrong on the disk goes wrong while the old one serves
        began = self._clock()
        self._retire(wait=True)
        try:
            serving, record = self._ready(variant)
        except SwitchError as error:
            self._go_back(previous, error)
            raise
        exchanged = self._publish(serving)
        return replace(record, stall_ms=(exchanged - began) * 1e3, time_s=exchanged)

    def _go_back(self, previous: Variant, error: SwitchError) -> None:
        try:
            self._publish(self._ready(previous)[0])
        except SwitchError as second:
            with self._changed:
                self._failure = SwitchError(f"{error}; and going back failed too: {second}")
                self._changed.notify_all()
            raise self._failure from second

    def _target(self, target: str | Variant) -> Variant:
        variants = self.portfolio.variants
        if target in ("smaller", "larger"):
            index = variants.index(self._active) + (1 if target == "larger" else -1)
            return variants[min(max(index, 0), len(variants) - 1)]
        name = target.name if isinstance(target, Variant) else target
        if name not in self.portfolio:
            raise SwitchError(f"no variant {name!r}; there are: {', '.join(v.name for v in variants)}")
        return self.portfolio[name]

    def _ready(self, variant: Variant) -> tuple[_Serving, SwitchRecord]:
        """Return the variant's session, built and warm, and the record of a switch to it but its stall."""
        times = [self._clock()]
        with _refusal(variant):
            content, optimised = self._content(variant)
            times.append(self._clock())
            model, arrays = self._inflate(content, check=variant.name not in self._checked)
            times.append(self._clock())
            self._checked.add(variant.name)
            build = build_optimised_session if optimised else build_session
            session = build(model, arrays, self._options.fresh(), self._providers)
            times.append(self._clock())
            self._warm_up(session)
            times.append(self._clock())
        prepare, inflate, build_time, warmup = ((end - begin) * 1e3 for begin, end in pairwise(times))
        record = SwitchRecord(
            previous=self._active.name,
            active=variant.name,
            inflate_ms=inflate,
            build_ms=build_time,
            warmup_ms=warmup,
            bytes=content.inflated_bytes,
            prepare_ms=prepare,
        )
        return _Serving(variant, session), record

    def _inflate(self, content: Content, *, check: bool) -> tuple[bytes, Arrays]:
        # Requests keep the processors that they are at: callers notice a switch less, and it costs no more in
        # all.
        serving = self._serving
        busy = serving.requests if serving is not None else 0
        return content.inflate(max(1, self._processors - busy), check=check)

    def _warm_up(self, session: ort.InferenceSession) -> None:
        """Run once on zeros shaped like the last request, where a first run takes much longer than others.

        On the CPU it takes a tenth longer: there a run for nothing would cost ten times what it saves.
        """
        if not self._providers.slow_at_first:
            return
        if self._last_shapes is not None:
            session.run(None, {name: np.zeros(*shape) for name, shape in self._last_shapes.items()})
            return
        guess = smallest_shapes(self.portfolio.inputs)
        if guess is not None:
            with suppress(*ORT_ERRORS):  # free dimensions of 1 may not suit the model
                session.run(None, {name: np.zeros(*shape) for name, shape in guess.items()})

    def _publish(self, serving: _Serving) -> float:
        """Let `serving` answer from now on, and release what did before as soon as nobody is inside."""
        with self._changed:
            old, self._serving, self._active, self._failure = self._serving, serving, serving.variant, None
            idle = _retired_idle(old)
            self._changed.notify_all()
        exchanged = self._clock()
        if idle is not None:
            idle.session = None
        return exchanged

    def _retire(self, *, wait: bool) -> None:
        """Let nobody begin on the serving session any more, and release it when (`wait`: until) nobody is
        inside.
        """
        with self._changed:
            old, self._serving = self._serving, None
            idle = _retired_idle(old)
            while wait and old is not None and old.requests:
                self._changed.wait()
        if idle is not None:
            idle.session = None

    @contextmanager
    def _lease(self) -> Iterator[ort.InferenceSession]:
        """Yield the serving session, kept until the block ends; onnxruntime's refusals become RunError."""
        self._check_process()
        began = self._meter.begin() if self._meter is not None else 0.0
        try:
            with self._changed:
                while self._serving is None:
                    if self._closed:
                        raise ClosedError("the switcher is closed")
                    if self._failure is not None:
                        raise SwitchError(str(self._failure)) from self._failure
                    self._changed.wait()
                serving = self._serving
                serving.requests += 1
            try:
                yield serving.session
            except RUN_ERRORS as error:
                raise RunError(f"{serving.variant.name}: {_reason(error)}") from error
            finally:
                with self._changed:
                    serving.requests -= 1
                    idle = serving.retired and not serving.requests
                    if idle:
                        self._changed.notify_all()
                if idle:
                    serving.session = None
        finally:
            if self._meter is not None:
                self._meter.end(began)

    # --- content and cache ----------------------------------------------------------------------------------

    def _take_from_cache(self) -> None:
        """Take every variant's optimised content that this device has, in place of the portfolio's."""
        options = self._options.fresh()
        plain = options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for variant in self.portfolio.variants:
            if plain or not self._providers.optimises_once:
                self._keys[variant.name] = None
                continue
            key = self._keys[variant.name] = device_cache.cache_key(variant.sha256, options, self._providers)
            if self._cache_folder is not None and self.portfolio.prepared(variant.name, key) is None:
                content = device_cache.load(self._cache_folder, key)
                if content is not None:
                    self.portfolio.keep_prepared(variant.name, key, content)

    def _content(self, variant: Variant) -> tuple[Content, bool]:
        """Return what the variant's session is built from, and whether its graph is optimised already."""
        key = self._keys[variant.name]
        if key is None:
            return self.portfolio.content(variant.name), False
        content = self.portfolio.prepared(variant.name, key)
        if content is None:
            original = self.portfolio.content(variant.name)
            model, arrays = self._inflate(original, check=True)
            from onnx_shift.runtime.optimise import optimise

            content = optimise(model, arrays, self._options.fresh, self._providers)
            if content is None:
                self._keys[variant.name] = None
                return original, False
            if self._cache_folder is not None:
                device_cache.store(self._cache_folder, key, content)
            self.portfolio.keep_prepared(variant.name, key, content)
        return content, True

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop serving: requests inside finish, later ones raise ClosedError. Closing again does nothing."""
        if os.getpid() != self._pid:
            return  # the parent's threads and locks are not here
        if self._controller is not None:
            self._controller.stop()
        with self._switching:
            with self._changed:
                if self._closed:
                    return
                self._closed = True
                self._changed.notify_all()
            self._retire(wait=False)

    def __enter__(self) -> "ModelSwitcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ClosedError(
                "the switcher belongs to the process that made it: make another in a forked child"
            )


def _retired_idle(serving: _Serving | None) -> _Serving | None:
    """Mark `serving` as retired; return it if nobody is inside. Otherwise the last to leave releases it."""
    if serving is None:
        return None
    serving.retired = True
    return None if serving.requests else serving


@contextmanager
def _refusal(variant: Variant) -> Iterator[None]:
    """Turn whatever keeps `variant` from being made ready into a SwitchError."""
    try:
        yield
    except BUILD_ERRORS as error:
        raise SwitchError(f"{variant.name}: cannot be made ready ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def smallest_shapes(inputs: Sequence[Signature]) -> dict[str, _Shape] | None:
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


def _cache_folder(cache: str | os.PathLike[str] | bool) -> Path | None:
    if cache is True:
        return device_cache.default_folder()
    return Path(cache) if cache is not False else None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
