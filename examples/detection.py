"""A detector's score in the profile: mean average precision at an overlap of a half, and at three quarters.

    onnx-shift profile DENSE.onnx PRUNED.onnx --evaluate detection:score -o profile.json         # in this folder
    onnx-shift pack DENSE.onnx PRUNED.onnx --profile profile.json --metric map50 --metric latency -o portfolio.zip

`validation.npz` holds `images` (N, C, H, W) as the model takes them, and all objects: `boxes` (M, 4) as x, y, x, y,
`classes` (M) and `image_of` (M), the number of the image they are in. The model answers for one image with boxes
(K, 4), scores (K) and classes (K); one that leaves overlapping boxes needs them thinned out here.
"""

import numpy as np


def score(infer) -> dict[str, float]:
    data = np.load("validation.npz")
    answers = [infer(None, {"input": image[None]}) for image in data["images"]]
    objects = data["boxes"], data["classes"], data["image_of"]
    return {
        "map50": mean_average_precision(answers, objects, 0.5),
        "map75": mean_average_precision(answers, objects, 0.75),
    }


def mean_average_precision(answers, objects, least_overlap: float) -> float:
    boxes, classes, image_of = objects
    precisions = []
    for kind in np.unique(classes):
        found = sorted(
            (
                (-score, image, box)
                for image, (some, scores, kinds) in enumerate(answers)
                for box, score, one in zip(some, scores, kinds, strict=True)
                if one == kind
            ),
            key=lambda entry: entry[0],
        )
        left = {image: list(boxes[(classes == kind) & (image_of == image)]) for image in range(len(answers))}
        hits = []
        for _, image, box in found:
            overlaps = [overlap(box, other) for other in left[image]]
            hits.append(bool(overlaps) and max(overlaps) >= least_overlap)
            if hits[-1]:
                del left[image][int(np.argmax(overlaps))]
        precisions.append(average_precision(np.array(hits, bool), int((classes == kind).sum())))
    return float(np.mean(precisions))


def average_precision(hits, objects: int) -> float:
    """The area below precision over recall, precision being the best at this recall or a higher one."""
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[hits].sum() / objects)


def overlap(one, other) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))
