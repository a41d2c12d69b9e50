"""From a sparse model to a switcher: prune it, pack it beside its dense form, and switch while requests run.

    python examples/prune_and_switch.py SPARSE.onnx

Writes pruned.onnx, folded.onnx and portfolio.zip into the working folder.
"""

import sys
import threading

import numpy as np
import onnx

import onnx_shift

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def random_feed(model: onnx_shift.ModelSwitcher) -> dict[str, np.ndarray]:
    """Random values for every input of the model, free axes being one long."""
    rng = np.random.default_rng(0)
    return {
        value.name: rng.random([size if isinstance(size, int) else 1 for size in value.shape]).astype(TYPES[value.type])
        for value in model.get_inputs()
    }


def main(sparse: str) -> None:
    result = onnx_shift.prune(sparse)
    result.save("pruned.onnx")
    print(result.summary())

    onnx.save(onnx_shift.fold_batch_norm(sparse), "folded.onnx")
    onnx_shift.pack(["folded.onnx", "pruned.onnx"], "portfolio.zip")

    with onnx_shift.ModelSwitcher("portfolio.zip", providers=["CPUExecutionProvider"], cache=False) as model:
        feed = random_feed(model)
        finished = threading.Event()
        answered = 0

        def ask() -> None:
            nonlocal answered
            while not finished.is_set():
                model.run(None, feed)
                answered += 1

        asking = threading.Thread(target=ask)
        asking.start()
        for target in ("smaller", "larger"):
            record = model.switch(target)
            cost = f"{record.total_ms:.1f} ms, of which callers waited {record.stall_ms:.2f} ms"
            print(f"{record.previous} -> {record.active}: {cost}")
        finished.set()
        asking.join()
        print(f"{answered} requests were answered meanwhile")


if __name__ == "__main__":
    main(sys.argv[1])
