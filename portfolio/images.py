"""Images as a data set keeps them, decoded by Pillow when they are asked for."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_shift.errors import OnnxShiftError

Uint8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

_AT_ONCE = 1024


class DataError(OnnxShiftError):
    """A data set that cannot be opened, or whose columns, images or labels cannot be used."""


@dataclass(frozen=True)
class Cells:
    """The values of one column in the order of `rows`, read when asked for: those of a list of row numbers by `read`.

    An image is {"bytes": …, "path": …}, bytes, or an array (H, W) or (H, W, 3) of uint8.
    """

    read: Callable[[list[int]], list[Any]]
    rows: Int64

    @classmethod
    def of(cls, values: Any) -> "Cells":
        """The cells of a list, or of whatever is indexed like one."""
        return cls(lambda rows: [values[row] for row in rows], np.arange(len(values)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Int64) -> list[Any]:
        return self.read(self.rows[index].tolist())

    def select(self, rows: Int64) -> "Cells":
        """These cells alone."""
        return replace(self, rows=self.rows[rows])


@dataclass(frozen=True)
class Encoded:
    """Images kept as encoded bytes and decoded when indexed; stands in for a uint8 array (N, C, H, W)."""

    name: str
    cells: Cells
    mode: str
    size: tuple[int, int]  # height, width
    resize: bool
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(thread_name_prefix="decode"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.cells), 1 if self.mode == "L" else 3, *self.size)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: slice | Int64) -> Uint8:
        places = np.arange(len(self))[index].tolist()
        with self.lock:  # many at once: one by one takes longer than to decode them
            cells = self.cells[index]
        decoded = list(self.pool.map(self._decode, places, cells))
        stacked = np.stack(decoded)
        return np.ascontiguousarray(stacked[:, None] if self.mode == "L" else stacked.transpose(0, 3, 1, 2))

    def _decode(self, place: int, cell: Any) -> Uint8:
        image = _open_image(cell, f"{self.name}: image {place}")
        if self.resize:
            return np.asarray(_fit(image.convert(self.mode), self.size))
        if image.mode != self.mode or (image.height, image.width) != self.size:
            raise DataError(
                f"{self.name}: image {place} is {image.mode} {image.width}x{image.height}, image 0 "
                f"{self.mode} {self.size[1]}x{self.size[0]}; --image-size brings all to one size and mode"
            )
        return np.asarray(image)


def read_images(name: str, cells: Cells, image_size: int | None, limit_bytes: int) -> Uint8 | Encoded:
    """Return the images, decoded at once where that takes no more than `limit_bytes`. Raises DataError naming `name`.

    With `image_size` the shorter side is resized to it and the centre cropped; without it all must be of one size.
    """
    if not len(cells):
        raise DataError(f"{name}: holds no images")
    some = [
        _open_image(cell, f"{name}: image {place}")
        for place, cell in enumerate(cells[: 1 if image_size is None else 64])
    ]
    if deep := next((image.mode for image in some if image.mode.startswith(("I", "F"))), None):
        raise DataError(f"{name}: images of mode {deep} have more than 8 bits a channel; convert them first")
    if image_size is not None:
        mode = "L" if all(image.mode in ("L", "1") for image in some) else "RGB"
        size = (image_size, image_size)
    else:
        mode, size = some[0].mode, (some[0].height, some[0].width)
        if mode not in ("L", "RGB"):
            raise DataError(f"{name}: images of mode {mode}; L and RGB are taken, --image-size converts to one of them")
    encoded = Encoded(name, cells, mode, size, resize=image_size is not None)
    if np.prod(encoded.shape) > limit_bytes:
        return encoded
    images = np.empty(encoded.shape, np.uint8)
    for start in range(0, len(images), _AT_ONCE):
        images[start : start + _AT_ONCE] = encoded[start : start + _AT_ONCE]
    encoded.pool.shutdown()
    return images


def coloured(grey: Uint8 | Encoded) -> Uint8 | Encoded:
    """Return grey images with their channel three times."""
    return replace(grey, mode="RGB") if isinstance(grey, Encoded) else np.repeat(grey, 3, axis=1)


def _open_image(cell: Any, where: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    if isinstance(cell, np.ndarray):
        return Image.fromarray(cell)
    try:
        content = cell if isinstance(cell, bytes) else cell.get("bytes")
        image = Image.open(cell["path"] if content is None else io.BytesIO(content))
        image.load()
    except (
        OSError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        AttributeError,
        TypeError,
        KeyError,
        ValueError,
    ) as error:
        raise DataError(f"{where} cannot be decoded ({error})") from error
    return image


def _fit(image: Any, size: tuple[int, int]) -> Any:
    """Resize the shorter side to the size, crop the centre."""
    from PIL import ImageOps

    return ImageOps.fit(image, (size[1], size[0]))
