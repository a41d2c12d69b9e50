"""Signing a portfolio by Ed25519, and checking that before anything of it is inflated (extra `sign`: cryptography).

The signature is a file of the archive beside the manifest. It covers name, method, sizes, CRC-32 and SHA-256 of every
other file as stored, in their order; the archive's one canonical form leaves no byte besides.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_shift.runtime.archive import STORED, Member, new_member
from onnx_shift.runtime.errors import PortfolioError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "signature.ed25519"
_SIGNATURE_BYTES = 64
Key = str | os.PathLike[str] | bytes


def sign(members: Iterable[Member], key: Key) -> Member:
    """Return the signature of `members`, to be written after them. `key`: a private key in PEM, or a file of one.

    Raises PortfolioError naming the key when it is none, or cryptography is not installed.
    """
    return new_member(SIGNATURE, _private_key(key).sign(_message(members)))


def check_signature(members: Mapping[str, Member], trusted: Key) -> None:
    """Raise PortfolioError unless `members` were signed by `trusted`, a public key in PEM, or a file of one."""
    from cryptography.exceptions import InvalidSignature

    public = _public_key(trusted)
    signature = members.get(SIGNATURE)
    if signature is None:
        raise PortfolioError("it is not signed, and only a signed portfolio is trusted")
    whole = signature.method == STORED and signature.size_bytes == _SIGNATURE_BYTES
    try:
        public.verify(signature.content().tobytes() if whole else b"", _message(members.values()))
    except InvalidSignature:
        raise PortfolioError("its signature does not fit: it was changed, or another key signed it") from None


def _message(members: Iterable[Member]) -> bytes:
    rows = [  # no name holds a line break
        f"{member.sha256()} {member.method} {member.crc32} {member.size_bytes} {member.name}"
        for member in members
        if member.name != SIGNATURE
    ]
    return "\n".join(["onnx-shift portfolio", *rows]).encode()


def check_signing_key(key: Key) -> None:
    """Raise PortfolioError, before any work is done, unless `sign` takes the key."""
    _private_key(key)


def _private_key(key: Key) -> "Ed25519PrivateKey":
    content, name = _read(key)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PortfolioError(f"{name}: no private key in PEM without a password ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise PortfolioError(f"{name}: no Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return private


def _public_key(key: Key) -> "Ed25519PublicKey":
    content, name = _read(key)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PortfolioError(f"{name}: no public key in PEM ({error})") from error
    if not isinstance(public, Ed25519PublicKey):
        raise PortfolioError(f"{name}: no Ed25519 key")
    return public


def _read(key: Key) -> tuple[bytes, str]:
    """Return the key's bytes, and how to call it."""
    try:
        import cryptography.hazmat  # noqa: F401
    except ImportError as error:
        raise PortfolioError("signatures need cryptography: pip install 'onnx-shift[sign]'") from error
    if isinstance(key, bytes):
        return key, "the key"
    try:
        return Path(key).read_bytes(), str(key)
    except OSError as error:
        raise PortfolioError(f"{key}: cannot be read ({error.strerror or error})") from error
