"""`ModelSwitcher`: an InferenceSession whose model can be exchanged while requests run."""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from onnx_shift.errors import one_line
from onnx_shift.runtime.binding import Binding
from onnx_shift.runtime.builder import ArraySpec, Builder, Built, choose_cache_folder
from onnx_shift.runtime.cascade import Both, check_cascade, next_of
from onnx_shift.runtime.choice import Choice, Current, check_same_signature, chosen_variant, nearest, variant_named
from onnx_shift.runtime.errors import SwitchError
from onnx_shift.runtime.inflate import Buffer
from onnx_shift.runtime.leasing import Leases, Serving
from onnx_shift.runtime.portfolio import Portfolio, Signature, Variant
from onnx_shift.runtime.record import SwitchRecord, tell
from onnx_shift.runtime.session import Options, OptionsSource, Provider, choose_providers

if TYPE_CHECKING:  # only a switcher with a policy needs them: importing the runtime stays quick
    from onnx_shift.runtime.controller import Controller
    from onnx_shift.runtime.load import Policy

_KEPT_RECORDS = 1000
_INFLATING_THREADS = 4


class ModelSwitcher:
    """Serves one variant of a portfolio through the interface of `onnxruntime.InferenceSession`, and
    exchanges it.

    `run` may be called from many threads, also while `switch` is at work. `sess_options`, `providers` and
    `provider_options` mean what they mean to InferenceSession (`sess_options` may be a function that makes
    them, which custom operators need). `start` names the first variant, by default that of median size.
    `overlap=False` releases the old session before the new one is built: the least memory, but callers wait.
    A `policy` decides by itself when to switch; `waiting` tells it how many requests wait in a queue of the
    application's own. `on_switch` is called with the record of each switch and update, after it, by the thread that
    switched; what it raises is logged. With `cascade` the next larger variant that the active one states a margin for
    (`onnx-shift profile --cascade`) is kept ready, too, and `run` asks it for the images of which the active one is
    unsure. `cache` is the folder for graphs optimised on this device: True for the default
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
        cascade: bool = False,
        start: str | None = None,
        cache: str | os.PathLike[str] | bool = True,
        waiting: Callable[[], int] | None = None,
        on_switch: Callable[[SwitchRecord], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        if on_switch is not None and not callable(on_switch):
            raise SwitchError(f"on_switch={on_switch!r}: give a function that takes the record of a switch")
        self._on_switch = on_switch
        self._options = OptionsSource(sess_options)
        self._providers = choose_providers(providers, provider_options)
        self._cache_folder = choose_cache_folder(cache)
        self._overlap, self._cascade = overlap, cascade
        self._last_shapes: dict[str, ArraySpec] | None = None  # of the inputs of the last request
        self._records: deque[SwitchRecord] = deque(maxlen=_KEPT_RECORDS)
        self._switching = threading.RLock()  # one switch at a time
        self._controller: Controller | None = None
        self._processors = min(_INFLATING_THREADS, _processors())
        builder = self._builder_of(portfolio)
        variants = builder.portfolio.variants
        variant = variants[len(variants) // 2] if start is None else variant_named(start, builder.portfolio)
        self._leases = Leases(Choice(variant, builder), clock)
        self._leases.publish(self._ready(self._leases.choice)[0])
        if policy is not None:
            self._watch(policy, waiting)

    def _builder_of(self, portfolio: Portfolio | str | os.PathLike[str] | Buffer) -> Builder:
        opened = portfolio if isinstance(portfolio, Portfolio) else Portfolio.open(portfolio)
        if self._cascade:
            check_cascade(opened)
        return Builder(opened, self._options, self._providers, self._cache_folder, self._clock)

    def _watch(self, policy: "Policy", waiting: Callable[[], int] | None) -> None:
        from onnx_shift.runtime.controller import Controller, check_policy
        from onnx_shift.runtime.meter import Meter

        check_policy(policy, waiting)
        meter = self._leases.meter = Meter(self._clock)
        self._controller = Controller(self, policy, meter, waiting, self._clock)
        # An unclosed switcher's thread must end before the interpreter does: inside onnxruntime it would abort.
        weakref.finalize(self, self._controller.stop)
        self._controller.start()

    def __repr__(self) -> str:
        state = "closed" if self._leases.closed else f"serving {self.active.name}"
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
        """Answer as `run` does, and say which variant it was that answered, of a cascade the smaller."""
        with self._leases.lease() as serving:
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
        with self._leases.lease() as serving:
            outputs: Sequence[Any] = serving.session.run_with_ort_values(
                output_names, input_dict_ort_values, run_options
            )
            return outputs

    def io_binding(self) -> Binding:
        """Return a binding for `run_with_iobinding` that stays good when the model is switched. Until it runs again it
        holds the memory of the session that it ran on last, for that session's outputs.
        """
        with self._leases.lease(request=False) as serving:
            return Binding(serving.session)

    def run_with_iobinding(self, iobinding: "Binding | ort.IOBinding", run_options: Any = None) -> None:
        """Answer into what is bound, as `InferenceSession.run_with_iobinding` does; otherwise like `run`."""
        with self._leases.lease() as serving:
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
        with self._leases.lease(request=False) as serving:
            meta = serving.session.get_modelmeta()  # a view into the session, which must not outlive it
            return SimpleNamespace(**{name: getattr(meta, name) for name in dir(meta) if not name.startswith("_")})

    def get_providers(self) -> list[str]:
        """Return the execution providers of the active session."""
        with self._leases.lease(request=False) as serving:
            return list(serving.session.get_providers())

    def get_provider_options(self) -> dict[str, Any]:
        """Return the options of these providers."""
        with self._leases.lease(request=False) as serving:
            return dict(serving.session.get_provider_options())

    def get_session_options(self) -> ort.SessionOptions:
        """Return a copy of the session options that every variant is built with."""
        return self._options.fresh()

    # --- switching ------------------------------------------------------------------------------------------

    @property
    def active(self) -> Variant:
        """The variant that serves."""
        return self._leases.choice.variant

    @property
    def portfolio(self) -> Portfolio:
        """The portfolio that it belongs to."""
        return self._leases.choice.builder.portfolio

    @property
    def current(self) -> Current:
        """Both, which belong together also while an update is at work."""
        variant, builder = self._leases.choice
        return Current(builder.portfolio, variant)

    @property
    def session(self) -> ort.InferenceSession:
        """The active variant's own session, for what this class does not offer. Whoever holds it holds its
        memory.
        """
        with self._leases.lease(request=False) as serving:
            session: ort.InferenceSession = getattr(serving.session, "small", serving.session)
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
        self._leases.check_process()
        with self._switching:
            self._leases.check_open()
            active, builder = self._leases.choice
            variant = chosen_variant(target, active, builder.portfolio)
            if variant is active and self._leases.failure is None:
                return SwitchRecord(active.name, active.name)
            try:
                record = self._exchange(Choice(variant, builder), by, why)
            except Exception:
                self._leases.counts.failed_switches += 1
                raise
        self._tell(record)
        return record

    def prepare(self) -> None:
        """Make every variant ready once, one after the other beside the one that serves, and let it go: from then on a
        switch inflates and builds, and optimises no graph. Raises SwitchError for one that cannot be made ready.
        """
        self._leases.check_process()
        builder = self._leases.choice.builder
        for variant in builder.portfolio:
            with self._switching:  # only while one is made ready: a policy may switch in between
                self._leases.check_open()
                self._build(Choice(variant, builder))

    def update(self, portfolio: Portfolio | str | os.PathLike[str] | Buffer, *, why: str = "") -> SwitchRecord:
        """Exchange the whole portfolio while requests run, none of which is lost; return what the exchange cost.

        All that can be wrong with the new one shows before: it is opened, must have the same inputs and outputs, and
        each of its variants is made ready once beside the one that serves. Then its variant of the active one's name
        takes over, or where there is none the nearest in size. Raises PortfolioError or SwitchError when it is
        refused, and then the old one still serves.
        """
        self._leases.check_process()
        try:
            builder = self._builder_of(portfolio)
            check_same_signature(builder.portfolio, self.portfolio)
            for variant in builder.portfolio:
                self._leases.check_open()
                self._build(Choice(variant, builder))
            with self._switching:
                self._leases.check_open()
                record = self._exchange(Choice(nearest(self.active, builder.portfolio), builder), "update", why)
        except Exception:
            with self._leases.lock:
                self._leases.counts.refused_updates += 1
            raise
        self._tell(record)
        return record

    def stats(self) -> dict[str, int | float]:
        """Return plain numbers for monitoring. Sums since the start: requests, failed_requests, request_ms, switches,
        failed_switches, updates, refused_updates, switch_ms, stall_ms, inflated_bytes; of a cascade sure_images, which
        the active variant answered, and unsure_images, which the larger one did. As it is now: running requests,
        variants, the active one's place among them (the smallest 0) and weight_bytes, and the portfolio_bytes held in
        memory, deflated.
        """
        portfolio, variant = self.current
        with self._leases.lock:
            return {
                **self._leases.counts.to_dict(),
                "running": self._leases.running(),
                "variants": len(portfolio),
                "place": portfolio.variants.index(variant),
                "weight_bytes": variant.weight_bytes,
                "portfolio_bytes": portfolio.stored_bytes,
            }

    def _exchange(self, choice: Choice, by: str, why: str) -> SwitchRecord:
        """Let `choice` serve, and note that it does."""
        record = self._switch_beside(choice) if self._overlap else self._switch_in_place(choice)
        record = record._replace(unix_s=time.time(), by=by, why=why)
        with self._leases.lock:
            self._records.append(record)
            self._leases.counts.add_switch(record)
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

    def _build(self, choice: Choice) -> Built:
        return choice.builder.build(choice.variant, threads=self._idle_processors(), shapes=self._last_shapes)

    def _switch_beside(self, choice: Choice) -> SwitchRecord:
        serving, record = self._ready(choice)
        began = self._clock()
        exchanged = self._leases.publish(serving)
        return record._replace(stall_ms=(exchanged - began) * 1e3, time_s=exchanged)

    def _switch_in_place(self, choice: Choice) -> SwitchRecord:
        previous = self._leases.choice
        serving = self._leases.serving
        if serving is not None and threading.get_ident() in serving.inside.values():
            raise SwitchError("switching in place from within a request would wait for that request for ever")
        # What can fail on the disk fails while the old one serves.
        choice.builder.prepare(choice.variant, threads=self._idle_processors())
        began = self._clock()
        try:
            self._leases.retire(wait=True)
            serving, record = self._ready(choice)
        except BaseException as error:  # an interruption, too: callers wait for a session
            self._go_back(previous, error)
            raise
        exchanged = self._leases.publish(serving)
        return record._replace(stall_ms=(exchanged - began) * 1e3, time_s=exchanged)

    def _go_back(self, previous: Choice, error: BaseException) -> None:
        try:
            self._leases.publish(self._ready(previous)[0])
        except BaseException as second:
            failure = SwitchError(f"{one_line(error)}; and going back failed too: {one_line(second)}")
            self._leases.fail(failure)
            raise failure from second

    def _ready(self, choice: Choice) -> tuple[Serving, SwitchRecord]:
        """Return the chosen session, ready to serve, and the record of a switch to it but its stall."""
        asked = next_of(choice.variant, choice.builder.portfolio) if self._cascade else None
        variants = [choice.variant] if asked is None else [choice.variant, asked.variant]
        built = [self._build(Choice(variant, choice.builder)) for variant in variants]
        record = SwitchRecord(
            previous=self.active.name,
            active=choice.variant.name,
            inflate_ms=sum(one.inflate_ms for one in built),
            build_ms=sum(one.build_ms for one in built),
            warmup_ms=sum(one.warmup_ms for one in built),
            bytes=sum(one.inflated_bytes for one in built),
            prepare_ms=sum(one.prepare_ms for one in built),
        )
        session = built[0].session
        if asked is not None:
            scores = choice.builder.portfolio.outputs[0].name
            session = Both(session, built[1].session, asked.margin, scores, self._leases.counts, self._leases.lock)
        return Serving(choice, session), record

    def _idle_processors(self) -> int:
        """How many threads may inflate: every thread that asked the serving session keeps a processor.

        Otherwise the longest gaps of callers grow by half, and the switch is only a fifth faster.
        """
        serving = self._leases.serving
        busy = len(serving.callers - {threading.get_ident()}) if serving is not None else 0
        return max(1, self._processors - busy)

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop serving: requests inside finish, later ones raise ClosedError. Closing again does nothing."""
        if not self._leases.here:
            return  # the parent's threads and locks are not here
        if self._controller is not None:
            self._controller.stop()
        with self._switching:
            self._leases.close()

    def __enter__(self) -> "ModelSwitcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
