"""`ModelSwitcher`: an InferenceSession whose model can be exchanged while requests run."""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from onnx_shift.errors import first_line
from onnx_shift.ort import RUN_ERRORS
from onnx_shift.runtime.binding import Binding
from onnx_shift.runtime.builder import ArraySpec, Builder, choose_cache_folder
from onnx_shift.runtime.choice import Choice, Current, check_same_signature, chosen_variant, nearest, variant_named
from onnx_shift.runtime.errors import ClosedError, RunError, SwitchError
from onnx_shift.runtime.inflate import Buffer
from onnx_shift.runtime.portfolio import Portfolio, Signature, Variant
from onnx_shift.runtime.record import Counts, SwitchRecord, tell
from onnx_shift.runtime.session import Options, OptionsSource, Provider, choose_providers

if TYPE_CHECKING:  # only a switcher with a policy needs them: importing the runtime stays quick
    from onnx_shift.runtime.controller import Controller
    from onnx_shift.runtime.load import Policy
    from onnx_shift.runtime.meter import Meter

_KEPT_RECORDS = 1000
_INFLATING_THREADS = 4
_LOOK_S = 0.05


class _Serving:
    """A session that answers requests, the threads of those inside it, and which threads asked it anything."""

    def __init__(self, choice: Choice, session: ort.InferenceSession) -> None:
        self.choice = choice
        self.session = session
        self.inside: dict[object, int] = {}
        self.callers: set[int] = set()
        self.retired = False


class ModelSwitcher:
    """Serves one variant of a portfolio through the interface of `onnxruntime.InferenceSession`, and
    exchanges it.

    `run` may be called from many threads, also while `switch` is at work. `sess_options`, `providers` and
    `provider_options` mean what they mean to InferenceSession (`sess_options` may be a function that makes
    them, which custom operators need). `start` names the first variant, by default that of median size.
    `overlap=False` releases the old session before the new one is built: the least memory, but callers wait.
    A `policy` decides by itself when to switch; `waiting` tells it how many requests wait in a queue of the
    application's own. `on_switch` is called with the record of each switch and update, after it, by the thread that
    switched; what it raises is logged. `cache` is the folder for graphs optimised on this device: True for the default
    ($ONNX_SHIFT_CACHE, else the user's cache folder), False for none. Raises ProviderError, PortfolioError or
    SwitchError. A signal handler may call `close`, or `switch` unless in place.
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
        on_switch: Callable[[SwitchRecord], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pid = os.getpid()
        self._clock = clock
        if on_switch is not None and not callable(on_switch):
            raise SwitchError(f"on_switch={on_switch!r}: give a function that takes the record of a switch")
        self._on_switch = on_switch
        self._options = OptionsSource(sess_options)
        self._providers = choose_providers(providers, provider_options)
        self._cache_folder = choose_cache_folder(cache)
        self._overlap = overlap
        self._last_shapes: dict[str, ArraySpec] | None = None  # of the inputs of the last request
        self._records: deque[SwitchRecord] = deque(maxlen=_KEPT_RECORDS)
        self._switching = threading.RLock()  # one switch at a time
        # Guards the fields below. Entered as the lock itself: an interruption inside Condition.__enter__, which is no
        # one step as a lock's is, would leave it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._serving: _Serving | None = None
        self._servings: weakref.WeakSet[_Serving] = weakref.WeakSet()  # also those that only finish their requests
        self._counts = Counts()
        self._failure: SwitchError | None = None
        self._closed = False
        self._meter: Meter | None = None
        self._controller: Controller | None = None
        self._processors = min(_INFLATING_THREADS, _processors())
        builder = self._builder_of(portfolio)
        variants = builder.portfolio.variants
        variant = variants[len(variants) // 2] if start is None else variant_named(start, builder.portfolio)
        self._active = Choice(variant, builder)
        self._publish(self._ready(self._active)[0])
        if policy is not None:
            self._watch(policy, waiting)

    def _builder_of(self, portfolio: Portfolio | str | os.PathLike[str] | Buffer) -> Builder:
        opened = portfolio if isinstance(portfolio, Portfolio) else Portfolio.open(portfolio)
        return Builder(opened, self._options, self._providers, self._cache_folder, self._clock)

    def _watch(self, policy: "Policy", waiting: Callable[[], int] | None) -> None:
        from onnx_shift.runtime.controller import Controller, check_policy
        from onnx_shift.runtime.meter import Meter

        check_policy(policy, waiting)
        self._meter = Meter(self._clock)
        self._controller = Controller(self, policy, self._meter, waiting, self._clock)
        # An unclosed switcher's thread must end before the interpreter does: inside onnxruntime it would abort.
        weakref.finalize(self, self._controller.stop)
        self._controller.start()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"serving {self.active.name}"
        return f"<ModelSwitcher {state} of {self.portfolio!r}>"

    # --- the interface of InferenceSession ------------------------------------------------------------------

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Answer as `InferenceSession.run` does, by the variant that was active when the call began.

        Raises RunError for a feed that the model refuses, ClosedError after `close` and in a forked child.
        """
        return self.run_named(output_names, input_feed, run_options)[1]

    def run_named(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> tuple[Variant, list[Any]]:
        """Answer as `run` does, and say which variant it was that answered."""
        with self._lease() as serving:
            outputs: list[Any] = serving.session.run(output_names, input_feed, run_options)
        if self._providers.slow_at_first and all(isinstance(value, np.ndarray) for value in input_feed.values()):
            self._last_shapes = {name: (value.shape, value.dtype) for name, value in input_feed.items()}
        return serving.choice.variant, outputs

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, Any],
        run_options: Any = None,
    ) -> Sequence[Any]:
        """Answer as `InferenceSession.run_with_ort_values` does; otherwise like `run`."""
        with self._lease() as serving:
            outputs: Sequence[Any] = serving.session.run_with_ort_values(
                output_names, input_dict_ort_values, run_options
            )
            return outputs

    def io_binding(self) -> Binding:
        """Return a binding for `run_with_iobinding` that stays good when the model is switched. Until it runs again it
        holds the memory of the session that it ran on last, for that session's outputs.
        """
        with self._lease(request=False) as serving:
            return Binding(serving.session)

    def run_with_iobinding(self, iobinding: "Binding | ort.IOBinding", run_options: Any = None) -> None:
        """Answer into what is bound, as `InferenceSession.run_with_iobinding` does; otherwise like `run`."""
        with self._lease() as serving:
            bound = iobinding.to(serving.session) if isinstance(iobinding, Binding) else iobinding
            serving.session.run_with_iobinding(bound, run_options)

    def get_inputs(self) -> list[Signature]:
        """Return name, type and shape of each input, the same for all variants."""
        return list(self.portfolio.inputs)

    def get_outputs(self) -> list[Signature]:
        """Return name, type and shape of each output, the same for all variants."""
        return list(self.portfolio.outputs)

    def get_modelmeta(self) -> SimpleNamespace:
        """Return the active model's metadata, with the attributes of onnxruntime's ModelMetadata."""
        with self._lease(request=False) as serving:
            meta = serving.session.get_modelmeta()  # a view into the session, which must not outlive it
            return SimpleNamespace(**{name: getattr(meta, name) for name in dir(meta) if not name.startswith("_")})

    def get_providers(self) -> list[str]:
        """Return the execution providers of the active session."""
        with self._lease(request=False) as serving:
            return list(serving.session.get_providers())

    def get_provider_options(self) -> dict[str, Any]:
        """Return the options of these providers."""
        with self._lease(request=False) as serving:
            return dict(serving.session.get_provider_options())

    def get_session_options(self) -> ort.SessionOptions:
        """Return a copy of the session options that every variant is built with."""
        return self._options.fresh()

    # --- switching ------------------------------------------------------------------------------------------

    @property
    def active(self) -> Variant:
        """The variant that serves."""
        return self._active.variant

    @property
    def portfolio(self) -> Portfolio:
        """The portfolio that it belongs to."""
        return self._active.builder.portfolio

    @property
    def current(self) -> Current:
        """Both, which belong together also while an update is at work."""
        variant, builder = self._active
        return Current(builder.portfolio, variant)

    @property
    def session(self) -> ort.InferenceSession:
        """The active variant's own session, for what this class does not offer. Whoever holds it holds its
        memory.
        """
        with self._lease(request=False) as serving:
            session: ort.InferenceSession = serving.session
            return session

    @property
    def records(self) -> tuple[SwitchRecord, ...]:
        """The records of the last thousand switches and updates, oldest first."""
        return tuple(self._records)

    def switch(self, target: str | Variant, *, by: str = "call", why: str = "") -> SwitchRecord:
        """Make `target` ("smaller", "larger", or a variant's name) the active variant; return what that cost.

        Returns when it serves. At either end, or when it is active already, nothing changes. The record names who
        switched, and why. Raises SwitchError when it cannot be made ready, and then the variant before still serves.
        """
        self._check_process()
        with self._switching:
            self._check_open()
            active, builder = self._active
            variant = chosen_variant(target, active, builder.portfolio)
            if variant is active and self._failure is None:
                return SwitchRecord(active.name, active.name)
            try:
                record = self._exchange(Choice(variant, builder), by, why)
            except Exception:
                self._counts.failed_switches += 1
                raise
        self._tell(record)
        return record

    def prepare(self) -> None:
        """Make every variant ready once, one after the other beside the one that serves, and let it go: from then on a
        switch inflates and builds, and optimises no graph. Raises SwitchError for one that cannot be made ready.
        """
        self._check_process()
        builder = self._active.builder
        for variant in builder.portfolio:
            with self._switching:  # only while one is made ready: a policy may switch in between
                self._check_open()
                self._try(Choice(variant, builder))

    def update(self, portfolio: Portfolio | str | os.PathLike[str] | Buffer, *, why: str = "") -> SwitchRecord:
        """Exchange the whole portfolio while requests run, none of which is lost; return what the exchange cost.

        All that can be wrong with the new one shows before: it is opened, must have the same inputs and outputs, and
        each of its variants is made ready once beside the one that serves. Then its variant of the active one's name
        takes over, or where there is none the nearest in size. Raises PortfolioError or SwitchError when it is
        refused, and then the old one still serves.
        """
        self._check_process()
        try:
            builder = self._builder_of(portfolio)
            check_same_signature(builder.portfolio, self.portfolio)
            for variant in builder.portfolio:
                self._check_open()
                self._try(Choice(variant, builder))
            with self._switching:
                self._check_open()
                record = self._exchange(Choice(nearest(self.active, builder.portfolio), builder), "update", why)
        except Exception:
            with self._lock:
                self._counts.refused_updates += 1
            raise
        self._tell(record)
        return record

    def stats(self) -> dict[str, int | float]:
        """Return plain numbers for monitoring. Sums since the start: requests, failed_requests, request_ms, switches,
        failed_switches, updates, refused_updates, switch_ms, stall_ms, inflated_bytes. As it is now: running requests,
        variants, the active one's place among them (the smallest 0) and weight_bytes, and the portfolio_bytes held in
        memory, deflated.
        """
        portfolio, variant = self.current
        with self._lock:
            return {
                **self._counts.to_dict(),
                "running": sum(len(serving.inside) for serving in self._servings),
                "variants": len(portfolio),
                "place": portfolio.variants.index(variant),
                "weight_bytes": variant.weight_bytes,
                "portfolio_bytes": portfolio.stored_bytes,
            }

    def _exchange(self, choice: Choice, by: str, why: str) -> SwitchRecord:
        """Let `choice` serve, and note that it does."""
        record = self._switch_beside(choice) if self._overlap else self._switch_in_place(choice)
        record = record._replace(unix_s=time.time(), by=by, why=why)
        with self._lock:
            self._records.append(record)
            self._counts.add_switch(record)
        return record

    def _tell(self, record: SwitchRecord) -> None:
        """Log the switch and call back, with no lock held: what is called may switch, also from another thread."""
        tell(record)
        if self._on_switch is None:
            return
        try:
            self._on_switch(record)
        except Exception:
            import logging

            logging.getLogger(__name__).exception("on_switch failed; the switch is done all the same")

    def _try(self, choice: Choice) -> None:
        choice.builder.build(choice.variant, threads=self._idle_processors(), shapes=self._last_shapes)

    def _switch_beside(self, choice: Choice) -> SwitchRecord:
        serving, record = self._ready(choice)
        began = self._clock()
        exchanged = self._publish(serving)
        return record._replace(stall_ms=(exchanged - began) * 1e3, time_s=exchanged)

    def _switch_in_place(self, choice: Choice) -> SwitchRecord:
        previous = self._active
        if self._serving is not None and threading.get_ident() in self._serving.inside.values():
            raise SwitchError("switching in place from within a request would wait for that request for ever")
        # What can fail on the disk fails while the old one serves.
        choice.builder.prepare(choice.variant, threads=self._idle_processors())
        began = self._clock()
        try:
            self._retire(wait=True)
            serving, record = self._ready(choice)
        except BaseException as error:  # an interruption, too: callers wait for a session
            self._go_back(previous, error)
            raise
        exchanged = self._publish(serving)
        return record._replace(stall_ms=(exchanged - began) * 1e3, time_s=exchanged)

    def _go_back(self, previous: Choice, error: BaseException) -> None:
        try:
            self._publish(self._ready(previous)[0])
        except BaseException as second:
            with self._lock:
                self._failure = SwitchError(f"{first_line(error)}; and going back failed too: {first_line(second)}")
                self._changed.notify_all()
            raise self._failure from second

    def _ready(self, choice: Choice) -> tuple[_Serving, SwitchRecord]:
        """Return the chosen session, ready to serve, and the record of a switch to it but its stall."""
        built = choice.builder.build(choice.variant, threads=self._idle_processors(), shapes=self._last_shapes)
        record = SwitchRecord(
            previous=self.active.name,
            active=choice.variant.name,
            inflate_ms=built.inflate_ms,
            build_ms=built.build_ms,
            warmup_ms=built.warmup_ms,
            bytes=built.inflated_bytes,
            prepare_ms=built.prepare_ms,
        )
        return _Serving(choice, built.session), record

    def _idle_processors(self) -> int:
        """How many threads may inflate: every thread that asked the serving session keeps a processor.

        Otherwise the longest gaps of callers grow by half, and the switch is only a fifth faster.
        """
        serving = self._serving
        busy = len(serving.callers - {threading.get_ident()}) if serving is not None else 0
        return max(1, self._processors - busy)

    def _publish(self, serving: _Serving) -> float:
        """Let `serving` answer from now on, and release what did before as soon as nobody is inside."""
        with self._lock:
            if self._closed:
                raise ClosedError("the switcher was closed meanwhile")
            old, self._serving, self._active, self._failure = self._serving, serving, serving.choice, None
            idle = _retired_idle(old)
            self._servings.add(serving)
            self._changed.notify_all()
        exchanged = self._clock()
        if idle is not None:
            idle.session = None
        return exchanged

    def _retire(self, *, wait: bool) -> None:
        """Let nobody begin on the serving session any more, and release it when (`wait`: until) nobody is
        inside.
        """
        with self._lock:
            old, self._serving = self._serving, None
            idle = _retired_idle(old)
            while wait and old is not None and old.inside:
                self._changed.wait(_LOOK_S)  # who is interrupted while leaving may not say so
        if idle is not None:
            idle.session = None

    @contextmanager
    def _lease(self, *, request: bool = True) -> Iterator[_Serving]:
        """Yield what serves, its session kept until the block ends; onnxruntime's refusals become RunError.

        Policies hear of it where it is a `request`. An interruption may come between any two calls: what is entered
        here leaves by the first step of a `finally`, which is one call into C.
        """
        self._check_process()
        token, thread = object(), threading.get_ident()
        serving, meter = None, self._meter if request else None
        began, failed = self._clock(), True
        try:
            if meter is not None:
                meter.begin(token)
            with self._lock:
                while self._serving is None:
                    if self._closed:
                        raise ClosedError("the switcher is closed")
                    if self._failure is not None:
                        raise SwitchError(str(self._failure)) from self._failure
                    self._changed.wait()
                serving = self._serving
                serving.inside[token] = thread
                serving.callers.add(thread)
            yield serving
            failed = False
        except RUN_ERRORS as error:
            raise RunError(f"{serving.choice.variant.name if serving else ''}: {first_line(error)}") from error
        finally:
            if serving is not None:
                serving.inside.pop(token, None)
                self._left(serving, self._clock() - began if request else None, failed)
            if meter is not None:
                meter.end(token)

    def _left(self, serving: _Serving, took_s: float | None, failed: bool) -> None:
        """Count a request, which took so long, and release a retired session that nobody is inside any more."""
        with self._lock:
            if took_s is not None:
                self._counts.requests += 1
                self._counts.failed_requests += failed
                self._counts.request_ms += took_s * 1e3
            idle = serving.retired and not serving.inside
            if idle:
                self._changed.notify_all()
        if idle:
            serving.session = None

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop serving: requests inside finish, later ones raise ClosedError. Closing again does nothing."""
        if os.getpid() != self._pid:
            return  # the parent's threads and locks are not here
        if self._controller is not None:
            self._controller.stop()
        with self._switching:
            with self._lock:
                if self._closed:
                    return
                self._closed = True
                self._changed.notify_all()
            self._retire(wait=False)

    def __enter__(self) -> "ModelSwitcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the switcher is closed")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ClosedError("the switcher belongs to the process that made it: make another in a forked child")


def _retired_idle(serving: _Serving | None) -> _Serving | None:
    """Mark `serving` as retired; return it if nobody is inside. Otherwise the last to leave releases it."""
    if serving is None:
        return None
    serving.retired = True
    return None if serving.inside else serving


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
