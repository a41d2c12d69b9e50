"""The models that a user names: ONNX files, folders of an unzipped portfolio, and portfolios with all variants."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime.archive import is_archive
from onnx_shift.runtime.content import MODEL
from onnx_shift.runtime.portfolio import MANIFEST, Portfolio


@dataclass(frozen=True)
class Source:
    """A model file, the name of its variant, and the metadata that a portfolio, `origin`, states of it."""

    path: Path
    name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: Path | None = None


Model = str | os.PathLike[str] | Source


def variant_name(model: Path) -> str:
    """Return the name of the model's variant: the file's without `.pruned`, of an unzipped portfolio the folder's."""
    folder = model.absolute().parent
    if model.name == MODEL and (any(folder.glob("weights*.bin")) or (folder.parent / MANIFEST).is_file()):
        return folder.name
    return model.stem.removesuffix(".pruned")


@contextmanager
def open_sources(models: Sequence[Model]) -> Iterator[list[Source]]:
    """Yield every model, and in place of a portfolio its variants, unpacked into a folder that then goes.

    A folder of an unzipped variant stands for the model in it, a source for itself. Raises PortfolioError for a
    broken portfolio.
    """
    with tempfile.TemporaryDirectory(prefix="onnx-shift-") as name:
        sources: list[Source] = []
        for index, model in enumerate(models):
            if isinstance(model, Source):
                sources.append(model)
                continue
            path = Path(model)
            path = path / MODEL if (path / MODEL).is_file() else path
            if path.is_file() and is_archive(path):
                sources += _unpack(path, Path(name, str(index)))
            else:
                sources.append(Source(path, variant_name(path)))
        yield sources


def _unpack(path: Path, folder: Path) -> list[Source]:
    portfolio = Portfolio.open(path)
    sources = []
    for variant in portfolio:
        content, own = portfolio.content(variant.name), folder / variant.name
        try:
            own.mkdir(parents=True)
            (folder / MANIFEST).touch()  # so that `variant_name` knows the layout
            for name, member in {MODEL: content.model, **content.weights}.items():
                (own / name).write_bytes(member.content().data)
        except OSError as error:
            raise OnnxShiftError(f"{path}: cannot be unpacked into {folder} ({error.strerror or error})") from error
        sources.append(Source(own / MODEL, variant.name, variant.metadata, path))
    return sources
