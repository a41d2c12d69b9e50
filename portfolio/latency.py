"""Latency of several callables, measured in turns so that a drift of the machine meets all of them alike.

One attempt is a number of rounds; in a round every callable gets a turn of some calls, the first of which is
thrown away (the caches still hold another model). The turn's median is the unit in which variants are
compared: a speed-up is the median over rounds of (baseline's turn / variant's turn), its range that of the rounds,
within which another run's median should lie; the spread is the distance between the quartiles of the turns over
their median.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_shift.portfolio.profile import Latency, Speedup

ROUNDS = 15
_FEWEST_ROUNDS = 5  # for models so slow that one call takes a good part of the seconds allowed
NOISY_SPREAD = 0.10  # turns whose quartiles lie further apart than this are measured again, then marked
_DIGITS = 5  # after the point, of milliseconds, spreads and speed-ups
_NOISY_RANGE = 2.0  # and turns of which one took this many times as long as another


@dataclass(frozen=True)
class Comparison:
    """What one attempt found for every callable."""

    latency: Mapping[str, Latency]
    speedup: Mapping[str, Speedup]


def compare_latency(
    calls: Mapping[str, Callable[[], object]],
    baseline: str,
    *,
    seconds: float = 1.0,
    attempts: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time every callable for about `seconds` in interleaved rounds; repeat while a latency is noisy.

    At most `attempts` are made, and the one whose worst spread is smallest is returned.
    """
    best: Comparison | None = None
    for attempt in range(1, attempts + 1):
        found = _summary(_rounds(calls, seconds, clock), baseline, attempt)
        if best is None or _worst_spread(found) < _worst_spread(best):
            best = found
        if not any(latency.noisy for latency in best.latency.values()):
            break
    assert best is not None
    return best


def _rounds(
    calls: Mapping[str, Callable[[], object]], seconds: float, clock: Callable[[], float]
) -> dict[str, list[list[float]]]:
    once = {name: _seconds_of_one(call, clock) for name, call in calls.items()}
    rounds = int(min(max(2 * seconds / max(once.values()), _FEWEST_ROUNDS), ROUNDS))
    turns: dict[str, list[list[float]]] = {name: [] for name in calls}
    for number in range(rounds):
        names = list(calls)
        for name in names if number % 2 == 0 else reversed(names):
            call = calls[name]
            call()
            turn = []
            for _ in range(int(max(seconds / rounds / once[name], 1))):
                start = clock()
                call()
                turn.append((clock() - start) * 1000)
            turns[name].append(turn)
    return turns


def _seconds_of_one(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    start = clock()
    call()
    return max(clock() - start, 1e-7)


def _summary(turns: Mapping[str, Sequence[Sequence[float]]], baseline: str, attempt: int) -> Comparison:
    medians = {name: np.array([float(np.median(turn)) for turn in rounds]) for name, rounds in turns.items()}
    latency, speedup = {}, {}
    for name, rounds in turns.items():
        p50, p95, p99 = np.percentile(np.concatenate([np.asarray(turn) for turn in rounds]), [50, 95, 99])
        low, high = np.percentile(medians[name], [25, 75])
        spread = float((high - low) / np.median(medians[name]))
        latency[name] = Latency(
            _rounded(p50),
            _rounded(p95),
            _rounded(p99),
            _rounded(spread),
            sum(len(turn) for turn in rounds),
            attempt,
            bool(spread > NOISY_SPREAD or medians[name].max() > _NOISY_RANGE * medians[name].min()),
        )
        ratios = medians[baseline] / medians[name]
        speedup[name] = Speedup(*map(_rounded, (np.median(ratios), ratios.min(), ratios.max())))
    return Comparison(latency, speedup)


def _worst_spread(found: Comparison) -> float:
    return max(latency.spread for latency in found.latency.values())


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
