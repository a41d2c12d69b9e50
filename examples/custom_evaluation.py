"""An accuracy of your own in the profile: the share of random images on which a variant agrees with the dense model.

    python examples/custom_evaluation.py DENSE.onnx PRUNED.onnx ...

Writes profile.json, and prints which variants are worth shipping. In place of `agreement`, put whatever judges your
model: an error in degrees, a word error rate, the images of a folder. It gets a function with the signature of
`onnxruntime.InferenceSession.run`, and returns a number between 0 (useless) and 1 (perfect).
"""

import sys

import numpy as np
import onnxruntime

import onnx_shift


def main(dense: str, *others: str) -> None:
    session = onnxruntime.InferenceSession(dense, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    shape = [64 if axis == 0 else size for axis, size in enumerate(image.shape)]
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wanted = session.run(None, {image.name: images})[0].argmax(1)

    def agreement(infer) -> float:
        answers = infer(None, {image.name: images})[0].argmax(1)
        return float((answers == wanted).mean())

    settings = onnx_shift.Settings(seconds=0.2, memory=False)
    profile = onnx_shift.profile([dense, *others], evaluate=agreement, dense=dense, settings=settings)
    profile.save("profile.json")
    for name, variant in profile.variants.items():
        print(f"{name}: {variant.accuracy:.0%} agree, {variant.timing.median_ms:.3f} ms")
    for name, reason in onnx_shift.select(profile).dropped.items():
        print(f"{name} is not worth shipping: {reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
