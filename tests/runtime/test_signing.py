"""A signed portfolio: whatever is changed, stripped or signed by another key is refused before anything is inflated."""

import io
from pathlib import Path

import numpy as np
import pytest

from onnx_shift.runtime import ModelSwitcher, Portfolio, PortfolioError, archive
from onnx_shift.runtime.archive import new_member, read_archive, write_archive
from onnx_shift.runtime.signing import SIGNATURE, check_signing_key, sign

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")


def pair() -> tuple[bytes, bytes]:
    """Return a new private and public key in PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


PRIVATE, PUBLIC = pair()


def signed(path: Path, key: bytes = PRIVATE) -> bytes:
    members = list(read_archive(path).values())
    file = io.BytesIO()
    write_archive(file, [*members, sign(members, key)])
    return file.getvalue()


@pytest.fixture
def nothing_inflates(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("inflated before the signature was checked")

    monkeypatch.setattr(archive, "inflate", refuse)


def test_a_signed_portfolio_opens_with_its_key_and_without(portfolio_path: Path, images: np.ndarray) -> None:
    raw = signed(portfolio_path)
    for portfolio in (Portfolio.open(raw, trusted=PUBLIC), Portfolio.open(raw)):
        assert [variant.name for variant in portfolio] == ["small", "medium", "large"]
        with ModelSwitcher(portfolio, providers=["CPUExecutionProvider"], cache=False) as model:
            assert model.run(None, {"input": images})[0].shape == (2, 5)


@pytest.mark.usefixtures("nothing_inflates")
def test_another_key_and_a_stripped_signature_are_refused(portfolio_path: Path) -> None:
    with pytest.raises(PortfolioError, match="its signature does not fit: it was changed, or another key signed it"):
        Portfolio.open(signed(portfolio_path), trusted=pair()[1])
    with pytest.raises(PortfolioError, match=r"portfolio\.zip: it is not signed, and only a signed portfolio"):
        Portfolio.open(portfolio_path, trusted=PUBLIC)


@pytest.mark.usefixtures("nothing_inflates")
@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_every_changed_byte_is_refused_before_anything_is_inflated(portfolio_path: Path, count: int) -> None:
    raw = signed(portfolio_path)
    random = np.random.default_rng(count)
    places = {*range(0, 300, 3), *range(len(raw) - 1500, len(raw), 5), *random.integers(0, len(raw), count).tolist()}
    for at in sorted(places):
        changed = bytearray(raw)
        changed[at] ^= int(random.integers(1, 256))
        with pytest.raises(PortfolioError):
            Portfolio.open(bytes(changed), trusted=PUBLIC)


@pytest.mark.usefixtures("nothing_inflates")
def test_members_reordered_renamed_or_added_are_refused(portfolio_path: Path) -> None:
    members = list(read_archive(signed(portfolio_path)).values())
    swapped = [members[0], members[2], members[1], *members[3:]]
    renamed = [*members[:-2], members[-2]._replace(name="large/weights-009.bin"), members[-1]]
    added = [*members[:-1], new_member("x", b"x"), members[-1]]
    long = [*members[:-1], new_member(SIGNATURE, members[-1].stored.tobytes() + b"x")]
    deflated = [*members[:-1], new_member(SIGNATURE, bytes(6400))]
    for changed in (swapped, renamed, added, long, deflated, members[:-2] + members[-1:]):
        file = io.BytesIO()
        write_archive(file, changed)
        with pytest.raises(PortfolioError, match="its signature does not fit"):
            Portfolio.open(file.getvalue(), trusted=PUBLIC)


def test_what_is_let_go_is_read_again_only_if_it_is_still_trusted(portfolio_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "signed.zip"
    path.write_bytes(signed(portfolio_path))
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    portfolio = Portfolio.open(path, trusted=tmp_path / "public.pem")
    portfolio.keep_prepared("large", "key", portfolio.content("large"))
    path.write_bytes(portfolio_path.read_bytes())
    with pytest.raises(PortfolioError, match="it is not signed"):
        portfolio.content("large")


def test_keys_that_are_none_are_named(portfolio_path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key")
    with pytest.raises(PortfolioError, match=r"text\.pem: no private key in PEM"):
        check_signing_key(tmp_path / "text.pem")
    with pytest.raises(PortfolioError, match=r"absent\.pem: cannot be read"):
        Portfolio.open(portfolio_path, trusted=tmp_path / "absent.pem")
    with pytest.raises(PortfolioError, match="the key: no public key in PEM"):
        Portfolio.open(portfolio_path, trusted=PRIVATE)
    assert check_signing_key(PRIVATE) is None
