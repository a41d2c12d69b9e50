"""One name for a free dimension, where models that are packed together call it by several."""

from collections.abc import Sequence

import onnx

from onnx_shift.runtime.portfolio import Signature


def unify_free_dimensions(
    model: onnx.ModelProto,
    name: str,
    wanted: tuple[Sequence[Signature], Sequence[Signature]],
    sides: tuple[Sequence[onnx.ValueInfoProto], Sequence[onnx.ValueInfoProto]],
) -> list[str]:
    """Give the free dimensions of `sides`, the inputs and outputs of `model`, the names that `wanted` has for them.

    Returns a line for people where one was called otherwise, else none.
    """
    renamed: dict[str, str] = {}
    for signatures, values in zip(wanted, sides, strict=True):
        for signature, value in zip(signatures, values, strict=True):
            dimensions = value.type.tensor_type.shape.dim
            for size, dimension in zip(signature.shape, dimensions, strict=False):
                if isinstance(size, str) and dimension.dim_param != size:
                    renamed[dimension.dim_param or "unnamed"] = size
                    dimension.dim_param = size
    for value in model.graph.value_info:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_param = renamed.get(dimension.dim_param, dimension.dim_param)
    pairs = ", ".join(f"{old} is {new} now" for old, new in renamed.items())
    return [f"{name}: free dimensions are called as in the first model: {pairs}"] if renamed else []
