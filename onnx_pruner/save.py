"""Writing a pruned model, atomically, with external data where it is too large for one file."""

import os
from pathlib import Path

import onnx

from onnx_shift import files
from onnx_shift.onnx_pruner.graph.network import LARGEST_MESSAGE
from onnx_shift.onnx_pruner.prune import PruneResult

MARGIN_BYTES = 1 << 20  # for the names of weights, which the count leaves out
SMALLEST_EXTERNAL = 1024  # bytes; smaller weights stay in the model file


def save(result: PruneResult, output: str | os.PathLike[str], source: str | os.PathLike[str] | None = None) -> None:
    """Write the pruned model; when nothing changed, `source` is copied byte for byte. Never overwrites the source.

    A model of 2 GB or more is written with its weights in `<output>.data` beside it.
    """
    target = Path(output)
    if source is not None:
        files.check_output(target, Path(source))
    if result.report.unchanged and source is not None and not result.report.external_data:
        files.write_bytes(target, files.read_bytes(source))
    elif result.report.bytes_after + MARGIN_BYTES <= LARGEST_MESSAGE:
        files.write_bytes(target, result.model.SerializeToString())
    else:
        _save_large(result.model, target)


def _save_large(model: onnx.ModelProto, target: Path) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(model)  # saving moves the weights out of the model
    data = target.with_name(f"{target.name}.data")
    with files.atomic_path(data) as weights, files.atomic_path(target) as skeleton:
        weights.unlink()
        onnx.save_model(
            large,
            skeleton,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=weights.name,
            size_threshold=SMALLEST_EXTERNAL,
        )
        written = onnx.load(skeleton, load_external_data=False)
        for tensor in written.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        skeleton.write_bytes(written.SerializeToString())
