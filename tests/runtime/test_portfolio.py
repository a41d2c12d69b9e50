import io
import json
import mmap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_shift.runtime import Portfolio, PortfolioError
from onnx_shift.runtime.archive import Member, new_member, read_archive, write_archive
from onnx_shift.runtime.portfolio import MANIFEST


def rewritten(path: Path, change: Any, *, package: bool = True) -> bytes:
    """Return the portfolio with `change(manifest, members)` applied, its container whole again; before format 3 the
    manifest was not inside that of a `package`.
    """
    members = read_archive(path)
    manifest = json.loads(members.pop(MANIFEST).content().tobytes())
    ours = manifest["additional_metadata"]["onnx_shift"]
    change(ours, members)
    manifest = manifest if package else ours
    file = io.BytesIO()
    write_archive(file, [new_member(MANIFEST, json.dumps(manifest).encode()), *members.values()])
    return file.getvalue()


def test_variants_come_by_size_and_answer_to_their_names(portfolio: Portfolio) -> None:
    assert [variant.name for variant in portfolio] == ["small", "medium", "large"]
    assert [variant.name for variant in portfolio.variants] == ["small", "medium", "large"]
    assert len(portfolio) == 3 and portfolio["medium"] is portfolio.variants[1] and "large" in portfolio
    weights = [16 * 27 + 16 * 16 * 9 + 5 * 16 + 16 + 5, 32 * 27 + 32 * 32 * 9 + 5 * 32 + 32 + 5]
    assert [variant.weight_bytes for variant in portfolio][:2] == [4 * count for count in weights]
    with pytest.raises(KeyError, match="no variant 'huge'; there are: small, medium, large"):
        portfolio["huge"]


def test_a_file_of_format_1_opens_in_the_order_of_all_its_weights(portfolio_path: Path) -> None:
    def to_format_1(manifest: Any, _: Any) -> None:
        manifest["format"] = 1
        for entry in manifest["variants"]:
            del entry["nonzero_bytes"]

    portfolio = Portfolio.open(rewritten(portfolio_path, to_format_1, package=False))
    assert [variant.name for variant in portfolio] == ["small", "medium", "large"]
    assert all(variant.nonzero_bytes == variant.weight_bytes for variant in portfolio)
    with pytest.raises(PortfolioError, match="by the bytes of their non-zero weights"):
        Portfolio.open(rewritten(portfolio_path, lambda m, _: (to_format_1(m, _), m["variants"].reverse())))


def test_a_file_of_format_2_opens_as_one_of_today(portfolio_path: Path) -> None:
    older = Portfolio.open(rewritten(portfolio_path, lambda m, _: m.update(format=2), package=False))
    assert [vars(variant) for variant in older] == [vars(variant) for variant in Portfolio.open(portfolio_path)]


@pytest.mark.skipif(not hasattr(ort, "ModelPackageContext"), reason="this onnxruntime knows no model packages")
def test_unzipped_it_is_a_model_package_of_onnxruntime(
    portfolio_path: Path, tmp_path: Path, answers: dict[str, np.ndarray], images: np.ndarray
) -> None:
    zipfile.ZipFile(portfolio_path).extractall(tmp_path)
    package = ort.ModelPackageContext(str(tmp_path))
    assert package.get_component_names() == ["small", "medium", "large"] and package.get_schema_version() == 1
    options = ort.ModelPackageOptions(ort.SessionOptions())
    for name, answer in answers.items():
        session = package.select_component(name, options).create_session()
        np.testing.assert_allclose(session.run(None, {"input": images})[0], answer, rtol=1e-5, atol=1e-6)


def test_opens_from_bytes_and_from_a_map_without_a_copy(portfolio_path: Path) -> None:
    raw = portfolio_path.read_bytes()
    with portfolio_path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for source in (raw, memoryview(raw), mapped):
        portfolio = Portfolio.open(source)
        assert portfolio["large"].sha256 == Portfolio.open(portfolio_path)["large"].sha256
        stored = portfolio.content("large").model.stored
        assert np.shares_memory(stored, np.frombuffer(source, np.uint8))


def test_deflated_bytes_are_what_is_held(portfolio: Portfolio, portfolio_path: Path) -> None:
    with zipfile.ZipFile(portfolio_path) as plain:
        sizes = {entry.filename: entry.compress_size for entry in plain.infolist()}
    for variant in portfolio:
        assert variant.deflated_bytes == sum(size for name, size in sizes.items() if name.startswith(variant.name))
    assert portfolio.stored_bytes == sum(size for name, size in sizes.items() if name != MANIFEST)


def test_unzipped_folders_run_in_plain_onnxruntime(
    portfolio_path: Path, tmp_path: Path, answers: dict[str, np.ndarray], images: np.ndarray
) -> None:
    with zipfile.ZipFile(portfolio_path) as plain:
        plain.extractall(tmp_path)
    for name, answer in answers.items():
        model = tmp_path / name / "model.onnx"
        onnx.checker.check_model(str(model), full_check=True)
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"input": images})[0], answer, rtol=1e-5, atol=1e-6)


def test_the_file_may_go_once_it_is_open(portfolio_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip"
    copy.write_bytes(portfolio_path.read_bytes())
    portfolio = Portfolio.open(copy)
    copy.unlink()
    assert portfolio.content("large").deflated_bytes == portfolio["large"].deflated_bytes


def swap_small_and_large(manifest: Any, members: dict[str, Member]) -> None:
    """Give each of the two the other's name, and its place."""
    text = json.dumps(manifest["variants"])
    for old, new in (("small", "?"), ("large", "small"), ("?", "large")):
        text = text.replace(old, new)
    manifest["variants"] = sorted(json.loads(text), key=lambda variant: variant["nonzero_bytes"])
    for table in (manifest["members"], members):
        swapped = dict(table)
        table.clear()
        for name, value in swapped.items():
            first, _, rest = name.partition("/")
            first = {"small": "large", "large": "small"}.get(first, first)
            table[f"{first}/{rest}"] = value if isinstance(value, dict) else value._replace(name=f"{first}/{rest}")


def test_content_let_go_is_read_again(portfolio_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip"
    copy.write_bytes(portfolio_path.read_bytes())
    portfolio = Portfolio.open(copy)
    content = portfolio.content("large")
    portfolio.keep_prepared("large", "key", content)
    assert portfolio.prepared("large", "key") is content and portfolio.prepared("large", "other") is None
    again = portfolio.content("large")
    assert again is not content and again.model.sha256() == content.model.sha256()
    copy.write_bytes(rewritten(copy, swap_small_and_large))
    with pytest.raises(PortfolioError, match=r"copy\.zip: changed since it was opened: large is another model now"):
        portfolio.content("large")
    copy.write_bytes(b"")
    with pytest.raises(PortfolioError, match=r"copy\.zip: no archive: too short"):
        portfolio.content("large")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m, _: m.update(format=4), "format 4 is unknown; this version reads those up to 3"),
        (lambda m, _: m.pop("format"), "format None is unknown"),
        (lambda m, _: m.pop("variants"), "manifest.json: malformed .KeyError 'variants'"),
        (lambda m, _: m.update(variants=3), "manifest.json: malformed"),
        (lambda m, _: m.update(variants=[]), "lists no variant"),
        (lambda m, _: m["variants"].reverse(), "does not list the variants by the bytes of their non-zero weights"),
        (lambda m, _: m["variants"].append(m["variants"][-1]), "lists no variant, or one twice"),
        (lambda m, _: m["variants"].pop(), "holds files that its manifest gives to no variant"),
        (
            lambda m, _: m["variants"][0].update(name="../small"),
            "variant '../small': its manifest entry is malformed",
        ),
        (
            lambda m, _: m["variants"][0].update(weight_bytes="1"),
            "variant 'small': its manifest entry is malformed",
        ),
        (
            lambda m, _: m["variants"][0].update(nonzero_bytes=1 << 40),
            "variant 'small': its manifest entry is malformed",
        ),
        (lambda m, _: m["variants"][0].pop("nonzero_bytes"), "manifest.json: malformed .KeyError 'nonzero_bytes'"),
        (
            lambda m, _: m["inputs"][0].update(type=7),
            "manifest.json: the input or output 'input' has no valid name or type",
        ),
        (lambda m, _: m["variants"][0]["tensors"][0].update(offset=-1), "no valid type, shape or offset"),
        (
            lambda m, _: m["variants"][0]["tensors"][0].update(offset=10**12),
            "does not lie inside 'weights-000.bin'",
        ),
        (
            lambda m, _: m["variants"][0]["tensors"][0].update(shape=[1 << 40]),
            "does not lie inside 'weights-000.bin'",
        ),
        (lambda m, _: m["variants"][0]["tensors"][0].update(type="object"), "no valid type, shape or offset"),
        (
            lambda m, _: m["variants"][0]["tensors"][0].update(file="../w.bin"),
            "does not lie inside '../w.bin'",
        ),
        (
            lambda m, _: m["variants"][0]["tensors"].append(m["variants"][0]["tensors"][0]),
            "lists a name twice",
        ),
        (
            lambda m, _: m["members"]["small/model.onnx"].update(sha256="0" * 64),
            "small/model.onnx: damaged .its SHA",
        ),
        (lambda m, _: m["members"]["small/model.onnx"].update(bytes=1), "small/model.onnx: damaged"),
        (lambda m, members: members.pop("small/weights-000.bin"), "small/weights-000.bin: missing"),
        (lambda m, members: m["members"].pop("small/weights-000.bin"), "not listed in manifest.json"),
        (lambda m, members: members.update(x=new_member("x", b"x")), "x: not listed in manifest.json"),
    ],
)
def test_a_manifest_that_lies_is_refused(portfolio_path: Path, change: Any, message: str) -> None:
    with pytest.raises(PortfolioError, match=message):
        Portfolio.open(rewritten(portfolio_path, change))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'"text"', b'{"additional_metadata": {}}'])
def test_a_manifest_that_is_none_is_refused(text: bytes) -> None:
    file = io.BytesIO()
    write_archive(file, [new_member(MANIFEST, text)])
    with pytest.raises(PortfolioError, match=r"manifest\.json"):
        Portfolio.open(file.getvalue())


def test_another_zip_is_no_portfolio(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with path.open("wb") as file:
        write_archive(file, [new_member("x", b"x")])
    with pytest.raises(PortfolioError, match=r"other\.zip: it holds no manifest\.json, so it is no portfolio"):
        Portfolio.open(path)


def test_a_manifest_that_would_fill_the_memory_is_refused() -> None:
    file = io.BytesIO()
    write_archive(file, [new_member(MANIFEST, bytes(17 << 20))])
    with pytest.raises(PortfolioError, match=r"manifest\.json: declares 17825792 bytes, which no manifest has"):
        Portfolio.open(file.getvalue())


def test_limits_and_missing_files_are_named(portfolio_path: Path, tmp_path: Path) -> None:
    with pytest.raises(PortfolioError, match=r"portfolio\.zip: small: \d+ bytes inflated, above the limit of 1000"):
        Portfolio.open(portfolio_path, limit_bytes=1000)
    with pytest.raises(PortfolioError, match=r"absent\.zip: cannot be read \(No such file"):
        Portfolio.open(tmp_path / "absent.zip")
    with pytest.raises(PortfolioError, match="portfolio: no archive: too short"):
        Portfolio.open(b"")
