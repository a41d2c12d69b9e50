"""One training on real CIFAR-10, its portfolio and what it costs (the paper's Table 3, Table 4 and Fig. 5).

The data set is named by ONNX_SHIFT_CIFAR10 (a parquet folder or a hub name; default: uoft-cs/cifar10). A finished
run below the work folder is taken as it is.
"""

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onnx_shift.evaluation import labelled_images
from onnx_shift.exporter.recipe import override, preset
from onnx_shift.exporter.rounds import Run, train
from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.pareto import select
from onnx_shift.onnx_pruner.profiling import Settings, profile
from onnx_shift.onnx_pruner.save import save

TITLE = "CIFAR-10: a quarter-width VGG-16, nine variants from one training"
MINUTES = 12

DATA = os.environ.get("ONNX_SHIFT_CIFAR10", "uoft-cs/cifar10")
TRAIN_IMAGES = 12_500  # a quarter of the set, so that the nine trainings fit into minutes of a CPU
EPOCHS = 4


def measure(work: Path) -> dict[str, Any]:
    run = _train(work / "run")
    pruned = []
    for level in run.levels:
        result = prune(level.onnx)
        pruned.append(work / "pruned" / level.onnx.name)
        pruned[-1].parent.mkdir(exist_ok=True)
        save(result, pruned[-1], level.onnx)
    found = profile(
        pruned,
        dense=pruned[0],
        data=labelled_images(DATA, pruned[0]),
        settings=Settings(batches=(1, 16), seconds=1.5, attempts=3),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    )
    (work / "profile.json").write_text(json.dumps(found, indent=1))
    selection = select(found, list(found["variants"]))
    sparse = {level.onnx.stem: level.accuracy for level in run.levels}
    dense = found["variants"][found["dense"]]
    rows = [
        _row(name, entry, dense, sparse[name], selection.dropped.get(name))
        for name, entry in found["variants"].items()
    ]
    last = rows[-1]
    hours = sum(_epoch_seconds(work / "run")) / 3600
    return {
        "rows": rows,
        "figures": {
            "search_efficiency": selection.efficiency,
            "training_hours": hours,
            "size_ratio": dense["file_bytes"] / found["variants"][rows[-1]["variant"]]["file_bytes"],
            "speedup": last["speed-up"],
            "speedup_batch_16": last["speed-up, batch 16"],
            "accuracy_change": last["change, points"],
            "slowest_speedup": min(row["speed-up"] for row in rows),
        },
        "notes": [
            f"{TRAIN_IMAGES:,} training images, {EPOCHS} epochs per level, one replicate: {hours:.2f} hours on "
            f"the CPU for {len(rows)} variants, {selection.efficiency:.0%} of them "
            "Pareto-optimal in accuracy, latency and size. "
            "Published for searches on CIFAR-10: PreNAS 9.11 GPU-days, 0.39 % optimal; RepVGG 26.09, 5.70 %; DARTS "
            "1.77, 8.00 %; DNNShifter 0.28, 44.44 %.",
            "That is one part in 160 of the published recipe's work, so accuracies are far below the paper's; what "
            "may be compared is the change from the dense network, the sizes and the speed-ups.",
        ],
    }


def _train(folder: Path) -> Run:
    recipe = override(
        preset("vgg16-quarter-cifar10"),
        data=DATA,
        precision="bfloat16",
        epochs=EPOCHS,
        train_images=TRAIN_IMAGES,
    )
    return train(recipe, folder)


def _epoch_seconds(folder: Path) -> list[float]:
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("seconds")
    return [float(line.split(",")[column]) for line in lines]


def _row(
    name: str, entry: Mapping[str, Any], dense: Mapping[str, Any], sparse: float, dropped: str | None
) -> dict[str, Any]:
    return {
        "variant": name,
        "ratio": round(entry["ratio"]),
        "accuracy": f"{entry['accuracy']:.2%}",
        "change, points": round(100 * (entry["accuracy"] - dense["accuracy"]), 2),
        "as trained": f"{sparse:.2%}",
        "parameters": entry["parameters"],
        "MACs": entry["macs"],
        "file, kB": entry["file_bytes"] / 1e3,
        "deflated, kB": entry["deflated_bytes"] / 1e3,
        "speed-up": entry["speedup"]["1"]["median"],
        "speed-up, batch 16": entry["speedup"]["16"]["median"],
        "session, MB": entry["memory_mb"],
        "switch, ms": entry["switch_ms"],
        "kept": "yes" if dropped is None else dropped,
    }


def draw(result: Mapping[str, Any], figure: Figure) -> None:
    accuracy, size = figure.subplots(1, 2)
    ratios = [row["ratio"] for row in result["rows"]]
    percent = [float(row["accuracy"].rstrip("%")) for row in result["rows"]]
    accuracy.plot(ratios, percent, "o-", color="#0b62c4")
    accuracy.set(xscale="log", xlabel="ratio: weights over those left", ylabel="accuracy, %")
    accuracy.set_xticks(ratios, [str(ratio) for ratio in ratios], minor=False)
    accuracy.minorticks_off()
    size.plot(ratios, [row["speed-up"] for row in result["rows"]], "o-", color="#0b62c4", label="batch 1")
    size.plot(
        ratios,
        [row["speed-up, batch 16"] for row in result["rows"]],
        "s--",
        color="#b45309",
        label="batch 16",
    )
    size.set(xscale="log", xlabel="ratio", ylabel="speed-up over the fused dense model", ylim=(0, None))
    size.set_xticks(ratios, [str(ratio) for ratio in ratios], minor=False)
    size.minorticks_off()
    size.legend(frameon=False)
