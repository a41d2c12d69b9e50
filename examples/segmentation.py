"""A segmenter's score in the profile: mean intersection over union of classes, and the share of right pixels.

    onnx-shift profile DENSE.onnx PRUNED.onnx --evaluate segmentation:score -o profile.json      # in this folder
    onnx-shift pack DENSE.onnx PRUNED.onnx --profile profile.json --metric mean_iou --metric latency -o portfolio.zip

`validation.npz` holds `images` (N, C, H, W) as the model takes them, and `classes` (N, H, W), the class of each pixel,
-1 where none is known. The model answers with scores (N, classes, H, W).
"""

import numpy as np


def score(infer) -> dict[str, float]:
    data = np.load("validation.npz")
    counts = None
    for image, wanted in zip(data["images"], data["classes"], strict=True):
        (scores,) = infer(None, {"input": image[None]})
        known, number = wanted >= 0, scores.shape[1]
        pairs = wanted[known] * number + scores[0].argmax(0)[known]
        found = np.bincount(pairs, minlength=number * number).reshape(number, number)
        counts = found if counts is None else counts + found
    right = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - right
    return {
        "mean_iou": float((right[union > 0] / union[union > 0]).mean()),
        "pixels": float(right.sum() / counts.sum()),
    }
