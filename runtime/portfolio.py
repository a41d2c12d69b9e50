"""A portfolio: several variants of one model, each kept deflated in memory.

The file is an archive (`archive.py`) of `manifest.json` and, per variant, `<name>/model.onnx` beside
`<name>/weights*.bin` in ONNX's external-data layout. The manifest lists every tensor that lies in a weights
file, so that a session is built without parsing any protobuf here.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from onnx_shift.runtime.archive import Member, new_member, read_archive, sha256, write_archive
from onnx_shift.runtime.content import MODEL, Content, content_of, tensor_table
from onnx_shift.runtime.errors import PortfolioError
from onnx_shift.runtime.inflate import Buffer
from onnx_shift.runtime.signing import SIGNATURE, Key, check_signature, sign

FORMAT = 3  # what is written; 1, which tells no non-zero bytes, and 2, which is no model package, are still read
MANIFEST = "manifest.json"
_OURS = "onnx_shift"  # our key among the metadata of a model package, whose manifest ours is inside
_DEFAULT_LIMIT_BYTES = 4 << 30
_MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Variant:
    """One model of a portfolio. `metadata` is what `pack` was told of it: accuracy, latency, ratio and the
    like.

    `weight_bytes` are those of its tensors uncompressed, `nonzero_bytes` those of the elements that are not
    zero (of a file of format 1, which does not tell, all of them), `deflated_bytes` those of its files in
    the portfolio, and `sha256` identifies the model.
    """

    name: str
    weight_bytes: int
    nonzero_bytes: int
    deflated_bytes: int
    sha256: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def accuracy(self) -> float | None:
        """Share of images classified right, 0..1, as its metadata states it."""
        stated = self.metadata.get("accuracy")
        return float(stated) if isinstance(stated, int | float) else None

    @property
    def accuracy_claimed(self) -> bool:
        """Whether that accuracy was taken over from the model's metadata, and not measured when it was profiled."""
        return self.accuracy is not None and self.metadata.get("accuracy_claimed") is True


def no_variant(name: object, variants: Iterable[Variant]) -> str:
    """Say that none of `variants` has that name, and which names there are."""
    return f"no variant {name!r}; there are: {', '.join(variant.name for variant in variants)}"


def stated_accuracies(variants: Iterable[Variant]) -> tuple[float, ...] | None:
    """Return the accuracy of each variant, None where not all state theirs."""
    stated = [variant.accuracy for variant in variants]
    known = tuple(accuracy for accuracy in stated if accuracy is not None)
    return known if len(known) == len(stated) else None


@dataclass(frozen=True)
class Signature:
    """An input or output that all variants share: name, type and shape as in onnxruntime's NodeArg."""

    name: str
    type: str
    shape: list[int | str | None] = field(hash=False)

    @property
    def comparable(self) -> tuple[str, str, list[int | None]]:
        """All of it but what its free dimensions are called."""
        return self.name, self.type, [size if isinstance(size, int) else None for size in self.shape]


class Portfolio:
    """Variants sorted by the bytes of their non-zero weights, smallest first, all deflated in memory. Safe to
    share between threads and switchers.

    `signed`: whether the file holds a signature, checked or not (`open` with `trusted` checks it).
    `len(portfolio)`, iteration and `portfolio["name"]` give `Variant`s. Open one with `Portfolio.open`.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        contents: Mapping[str, Content],
        inputs: Sequence[Signature],
        outputs: Sequence[Signature],
        source: str | os.PathLike[str] | None = None,
        limit_bytes: int = _DEFAULT_LIMIT_BYTES,
        trusted: Key | None = None,
        signed: bool = False,
    ) -> None:
        self.variants = tuple(variants)
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._by_name = {variant.name: variant for variant in variants}
        self._contents = dict(contents)
        self._prepared: dict[str, tuple[str, Content]] = {}  # by name: the cache key, and what it stands for
        self.signed = signed
        self._limit_bytes, self._trusted = limit_bytes, trusted
        self._source = Path(source).absolute() if source is not None else None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str] | Buffer,
        *,
        trusted: Key | None = None,
        limit_bytes: int = _DEFAULT_LIMIT_BYTES,
    ) -> "Portfolio":
        """Read a portfolio from a path, or over bytes or a memory map, which it then points into without a
        copy.

        Structure, names, declared sizes (at most `limit_bytes` inflated per variant) and the SHA-256 of every
        member are checked. With `trusted`, a public Ed25519 key in PEM or a file of one, what that key did not sign is
        refused before anything is inflated. Raises PortfolioError naming the file and what is wrong.
        """
        path = source if isinstance(source, str | os.PathLike) else None
        try:
            return cls._open(source, path, trusted, limit_bytes)
        except PortfolioError as error:
            if path is None:
                raise PortfolioError(f"portfolio: {error}") from error
            raise PortfolioError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error

    @classmethod
    def _open(
        cls,
        source: str | os.PathLike[str] | Buffer,
        path: str | os.PathLike[str] | None,
        trusted: Key | None,
        limit_bytes: int,
    ) -> "Portfolio":
        members = read_archive(source)
        if trusted is not None:
            check_signature(members, trusted)
        signed = members.pop(SIGNATURE, None) is not None
        manifest = read_manifest(members)
        with _malformed_manifest():
            inputs, outputs = (_signatures(manifest[key]) for key in ("inputs", "outputs"))
            variants = [_variant(entry, members, manifest) for entry in manifest["variants"]]
            contents = {
                entry["name"]: content_of(entry, members, prefix=f"{entry['name']}/") for entry in manifest["variants"]
            }
        if not variants or len(contents) != len(variants):
            raise PortfolioError("its manifest lists no variant, or one twice")
        if variants != sorted(variants, key=size_order):
            raise PortfolioError("its manifest does not list the variants by the bytes of their non-zero weights")
        listed = sum(1 + len(content.weights) for content in contents.values())
        if listed + 1 != len(members):
            raise PortfolioError("it holds files that its manifest gives to no variant")
        for name, content in contents.items():
            size_bytes = content.inflated_bytes
            if size_bytes > limit_bytes:
                raise PortfolioError(f"{name}: {size_bytes} bytes inflated, above the limit of {limit_bytes}")
        return cls(variants, contents, inputs, outputs, path, limit_bytes, trusted, signed)

    def __len__(self) -> int:
        return len(self.variants)

    def __iter__(self) -> Iterator[Variant]:
        return iter(self.variants)

    def __getitem__(self, name: str) -> Variant:
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(no_variant(name, self.variants)) from None

    def __contains__(self, item: object) -> bool:
        return item in self._by_name or item in self.variants

    def __repr__(self) -> str:
        return f"Portfolio({', '.join(self._by_name)})"

    @property
    def stored_bytes(self) -> int:
        """The deflated bytes that it holds in memory now."""
        with self._lock:
            prepared = [content for _, content in self._prepared.values()]
            return sum(content.deflated_bytes for content in (*self._contents.values(), *prepared))

    def content(self, name: str) -> Content:
        """Return the variant's content as the file holds it, read again where `keep_prepared` let it go.

        Raises PortfolioError when the file is not there any more or was changed meanwhile.
        """
        with self._lock:
            content = self._contents.get(name)
        if content is not None:
            return content
        assert self._source is not None  # only what can be read again is let go
        again = Portfolio.open(self._source, trusted=self._trusted, limit_bytes=self._limit_bytes)
        if name not in again or again[name].sha256 != self[name].sha256:
            raise PortfolioError(f"{self._source}: changed since it was opened: {name} is another model now")
        return again.content(name)

    def prepared(self, name: str, key: str) -> Content | None:
        """Return the variant's device-optimised content under the cache key `key`, if that is what it holds."""
        held, content = self._prepared.get(name, (None, None))
        return content if held == key else None

    def keep_prepared(self, name: str, key: str, content: Content) -> None:
        """Hold `content` as the variant's one copy, under `key`, in place of one under another key and of what can be
        read again from the path.
        """
        with self._lock:
            self._prepared[name] = key, content
            if self._source is not None:
                self._contents.pop(name, None)


def size_order(variant: Variant) -> tuple[int, str]:
    """Sort key of variants: bytes of non-zero weights, which is what they cost where zeros are not computed,
    then name.
    """
    return variant.nonzero_bytes, variant.name


def write_portfolio(
    file: IO[bytes],
    variants: Sequence[Variant],
    contents: Mapping[str, Content],
    inputs: Sequence[Signature],
    outputs: Sequence[Signature],
    *,
    key: Key | None = None,
) -> None:
    """Write the portfolio's archive to `file`, signed by `key` where given: the same arguments give the same bytes."""
    ordered = sorted(variants, key=size_order)
    body = {
        "inputs": [vars(signature) for signature in inputs],
        "outputs": [vars(signature) for signature in outputs],
        "variants": [
            {
                "name": variant.name,
                "weight_bytes": variant.weight_bytes,
                "nonzero_bytes": variant.nonzero_bytes,
                "metadata": dict(variant.metadata),
                "tensors": tensor_table(contents[variant.name]),
            }
            for variant in ordered
        ],
    }
    members = [
        member
        for variant in ordered
        for member in (contents[variant.name].model, *contents[variant.name].weights.values())
    ]
    write_with_manifest(file, body, members, components=[variant.name for variant in ordered], key=key)


def write_with_manifest(
    file: IO[bytes],
    body: Mapping[str, Any],
    members: Sequence[Member],
    *,
    components: Sequence[str] = (),
    key: Key | None = None,
) -> None:
    """Write an archive whose first member is a manifest: format version, `body`, SHA-256 of every other
    member. With `key` a signature of all is its last.

    The manifest is that of one of onnxruntime's model packages, of which `components` are folders with a model.
    """
    import json  # late, like all that only reading or writing needs: the import is held to a budget

    hashes = {member.name: {"sha256": member.sha256(), "bytes": member.size_bytes} for member in members}
    content = {
        "schema_version": "1.0",
        "components": {name: {"variants": {name: _package_variant(name)}} for name in components},
        "additional_metadata": {_OURS: {"format": FORMAT, **body, "members": hashes}},
    }
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # NaN in what was measured, a name that is no text
        raise PortfolioError(f"{MANIFEST}: cannot be written ({error})") from error
    if len(text) > _MAX_MANIFEST_BYTES:
        raise PortfolioError(f"{MANIFEST}: {len(text)} bytes, above the limit of {_MAX_MANIFEST_BYTES}")
    whole = [new_member(MANIFEST, text), *members]
    write_archive(file, whole if key is None else [*whole, sign(whole, key)])


def _package_variant(folder: str) -> dict[str, Any]:
    """Return how onnxruntime finds a folder's model: it must name one execution provider, and the CPU's runs all."""
    model = {"model_file": MODEL}
    return {"ep": "CPUExecutionProvider", "variant_directory": folder, "executor_info": {"ort": model}}


def read_manifest(members: Mapping[str, Member]) -> dict[str, Any]:
    """Return our part of the manifest among `members`, its format and every other member's size and SHA-256 checked."""
    import json

    if MANIFEST not in members:
        raise PortfolioError(f"it holds no {MANIFEST}, so it is no portfolio")
    if members[MANIFEST].size_bytes > _MAX_MANIFEST_BYTES:
        raise PortfolioError(f"{MANIFEST}: declares {members[MANIFEST].size_bytes} bytes, which no manifest has")
    try:
        manifest = json.loads(members[MANIFEST].content().tobytes())
    except (ValueError, RecursionError) as error:
        raise PortfolioError(f"{MANIFEST}: no JSON ({error})") from error
    if isinstance(manifest, dict) and isinstance(manifest.get("additional_metadata"), dict):  # since format 3
        manifest = manifest["additional_metadata"].get(_OURS)
    if not isinstance(manifest, dict) or manifest.get("format") not in range(1, FORMAT + 1):
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise PortfolioError(f"{MANIFEST}: format {found!r} is unknown; this version reads those up to {FORMAT}")
    with _malformed_manifest():
        listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in manifest["members"].items()}
    for name in listed.keys() ^ (members.keys() - {MANIFEST}):
        raise PortfolioError(f"{name}: missing" if name in listed else f"{name}: not listed in {MANIFEST}")
    for name, (stated, size_bytes) in listed.items():
        if members[name].size_bytes != size_bytes or members[name].sha256() != stated:
            raise PortfolioError(f"{name}: damaged (its SHA-256 differs from the manifest's)")
    return manifest


def _variant(entry: Mapping[str, Any], members: Mapping[str, Member], manifest: Mapping[str, Any]) -> Variant:
    name, weight_bytes, metadata = entry["name"], entry["weight_bytes"], entry["metadata"]
    nonzero_bytes = weight_bytes if manifest["format"] == 1 else entry["nonzero_bytes"]
    named = isinstance(name, str) and name and "/" not in name
    counted = type(weight_bytes) is int and type(nonzero_bytes) is int and 0 <= nonzero_bytes <= weight_bytes
    if not named or not counted or not isinstance(metadata, dict):
        raise PortfolioError(f"variant {name!r}: its manifest entry is malformed")
    own = [path for path in members if path.startswith(f"{name}/")]
    identity = sha256("".join(manifest["members"][path]["sha256"] for path in own).encode())
    deflated_bytes = sum(members[path].stored_bytes for path in own)
    return Variant(name, weight_bytes, nonzero_bytes, deflated_bytes, identity, dict(metadata))


def _signatures(rows: Sequence[Mapping[str, Any]]) -> list[Signature]:
    signatures = [Signature(row["name"], row["type"], list(row["shape"])) for row in rows]
    for value in signatures:
        if not isinstance(value.name, str) or not isinstance(value.type, str):
            raise PortfolioError(f"{MANIFEST}: the input or output {value.name!r} has no valid name or type")
    return signatures


@contextmanager
def _malformed_manifest() -> Iterator[None]:
    """Turn the errors that a manifest of another shape causes into one of ours."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PortfolioError(f"{MANIFEST}: malformed ({type(error).__name__} {error})") from error
