"""What a session is built from: its table of tensors is checked, its files are inflated side by side."""

import numpy as np
import pytest

from onnx_shift.runtime.archive import new_member
from onnx_shift.runtime.content import content_of, tensor_table
from onnx_shift.runtime.errors import PortfolioError

NUMBERS = np.arange(6, dtype=np.float32)
ROWS = [
    {"name": "a", "type": "float32", "shape": [2, 2], "file": "w0.bin", "offset": 8},
    {"name": "b", "type": "float32", "shape": [6], "file": "w1.bin", "offset": 0},
]
FILES = {"small/model.onnx": b"graph", "small/w0.bin": NUMBERS.tobytes(), "small/w1.bin": (-NUMBERS).tobytes()}
MEMBERS = {name: new_member(name, content) for name, content in FILES.items()}


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_tensors_are_views_of_the_files_where_the_table_says(threads: int) -> None:
    content = content_of({"tensors": ROWS}, MEMBERS, prefix="small/")
    model, arrays = content.inflate(threads, check=True)
    assert model == b"graph"
    assert arrays["a"].tolist() == [[2, 3], [4, 5]]
    assert arrays["b"].tolist() == [-0.0, -1, -2, -3, -4, -5]
    assert content.inflated_bytes == len(b"graph") + 2 * NUMBERS.nbytes
    assert tensor_table(content) == [{**row, "shape": tuple(row["shape"])} for row in ROWS]


def test_a_damaged_file_is_named() -> None:
    damaged = {**MEMBERS, "small/w1.bin": MEMBERS["small/w1.bin"]._replace(crc32=0)}
    content = content_of({"tensors": ROWS}, damaged, prefix="small/")
    with pytest.raises(PortfolioError, match=r"^small/w1.bin: damaged"):
        content.inflate(2, check=True)


def test_a_folder_without_a_model_is_refused() -> None:
    with pytest.raises(PortfolioError, match=r"^large/model.onnx: missing$"):
        content_of({"tensors": []}, MEMBERS, prefix="large/")
