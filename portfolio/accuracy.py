"""How often a model is right: on labelled images, or by a function of the user's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnx_shift.errors import OnnxShiftError
from onnx_shift.ort import CPU, ORT_ERRORS
from onnx_shift.portfolio.cascade import Judged
from onnx_shift.portfolio.profile import ProfileError
from onnx_shift.portfolio.select import METRICS
from onnx_shift.portfolio.sessions import fixed_batch, open_session
from onnx_shift.runtime.cascade import margins

Batch = tuple[NDArray[Any], NDArray[Any]]
Data = Callable[[], Iterable[Batch]]
Infer = Callable[[Sequence[str] | None, Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]  # as InferenceSession.run
Evaluate = Callable[[Infer], float | Mapping[str, float]]


@dataclass(frozen=True)
class Accuracy:
    """Shares of the images whose class is the first of the answers (`top1`), or among five (`top5`)."""

    top1: float
    top5: float
    images: int
    classes: int
    judged: Judged = field(repr=False, compare=False)


def measure_accuracy(model: Path, batches: Iterable[Batch], provider: str = CPU, threads: int = 1) -> Accuracy:
    """Classify all images of `batches` and return the shares that come out right. Raises ProfileError."""
    session = open_session(model, [provider], threads)
    five = classes = 0
    parts: list[Judged] = []
    for pixels, labels in batches:
        logits = class_scores(model, session, pixels)
        if np.max(labels) >= logits.shape[1]:
            raise ProfileError(
                f"{model}: tells {logits.shape[1]} classes apart, images are labelled up to {np.max(labels)}"
            )
        ranked = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        right = ranked == np.asarray(labels).reshape(-1, 1)
        parts.append(Judged(margins(logits), right[:, 0]))
        five += int(right.any(axis=1).sum())
        classes = logits.shape[1]
    judged = Judged(*(np.concatenate([getattr(part, name) for part in parts] or [[]]) for name in ("margins", "right")))
    images = len(judged.right)
    if images == 0:
        raise ProfileError("the data set holds no image")
    return Accuracy(int(judged.right.sum()) / images, five / images, images, classes, judged)


def class_scores(model: Path, session: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the scores (N, classes) that `session` of `model` gives images (N, C, H, W).

    A model with a fixed batch gets them in pieces of that size, the last one padded. Raises ProfileError.
    """
    if len(session.get_inputs()) != 1:
        names = ", ".join(value.name for value in session.get_inputs())
        raise ProfileError(f"{model}: has {len(session.get_inputs())} inputs ({names}), images are but one")
    step = fixed_batch(session)
    scores = np.concatenate([_run(model, session, piece, step) for piece in _pieces(pixels, step)])
    if scores.ndim != 2:
        raise ProfileError(f"{model}: its first output is no table of class scores {scores.shape}")
    return scores


def own_scores(model: Path, evaluate: Evaluate, provider: str = CPU, threads: int = 1) -> dict[str, Any]:
    """Return what `evaluate` finds for `model`, by field of a variant: its `accuracy`, and `scores` where there are
    several. Raises ProfileError.
    """
    session = open_session(model, [provider], threads)
    try:
        found = evaluate(session.run)
    except OnnxShiftError:
        raise
    except Exception as error:  # it is anybody's code
        raise ProfileError(f"{model}: {{evaluate}} failed ({error!r})", evaluate=None) from error
    if not isinstance(found, Mapping):
        check_share(f"{model}: {{evaluate}} returned", found, evaluate=None)
        return {"accuracy": float(found)}
    if not found:
        raise ProfileError(f"{model}: {{evaluate}} returned no score", evaluate=None)
    for name, share in found.items():
        if name in METRICS and name != "accuracy":
            raise ProfileError(f"{model}: {{evaluate}} returned {name}, which profile measures itself", evaluate=None)
        check_share(f"{model}: {{evaluate}} returned {name}", share, evaluate=None)
    scores = {str(name): float(share) for name, share in found.items()}
    return {"accuracy": scores.get("accuracy", next(iter(scores.values()))), "scores": scores}


def check_share(what: str, share: Any, **parameters: None) -> None:
    """Raise ProfileError for what is no share; `what` names it, with `parameters` of ours between braces."""
    if not isinstance(share, float | int | np.floating) or not 0 <= share <= 1:
        raise ProfileError(f"{what} {share}, not a share from 0 to 1", **parameters)


def _pieces(pixels: NDArray[Any], step: int | None) -> Iterable[NDArray[Any]]:
    if step is None:
        return [pixels]
    return (pixels[start : start + step] for start in range(0, len(pixels), step))


def _run(model: Path, session: Any, pixels: NDArray[Any], step: int | None) -> NDArray[Any]:
    name = session.get_inputs()[0].name
    missing = 0 if step is None else step - len(pixels)
    if missing:
        pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # what fails is told below
    try:
        answer = np.asarray(session.run(None, {name: pixels}, quiet)[0])
    except ORT_ERRORS as error:
        shape = "×".join(map(str, pixels.shape[1:]))
        raise ProfileError(f"{model}: does not take images of {shape} as {name} ({error})") from error
    return answer[: len(answer) - missing]
