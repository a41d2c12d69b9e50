#!/usr/bin/env bash
# A guess: weights times a 0/1 mask compress like the same weights with their pruned places set to 0.
# What happens: a negative weight times 0 is -0.0 (IEEE 754), which compares equal to 0.0 and is another bit pattern;
# about half of the zeros are negative, and DEFLATE (zip, npz, wheels) takes about 40 % more bytes for 90 % sparsity.
# Seen with numpy 2.4.6 and Python's zlib. Who prunes with masks, as most tools do, and ships the file meets it.
# What to do: add 0.0 after the mask (-0.0 + 0.0 is 0.0), or use where(mask, weight, 0).
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import zlib

import numpy as np


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy",)), sep=", ")
random = np.random.default_rng(0)
weight = random.normal(size=(512, 512)).astype(np.float32)
mask = random.random(weight.shape) < 0.1
masked = weight * mask
clean = masked + np.float32(0)
expect(np.array_equal(masked, clean), "the two arrays differ as numbers")
negative = np.signbit(masked[masked == 0]).mean()
sizes = [len(zlib.compress(array.tobytes())) / array.nbytes for array in (masked, clean)]
print(
    f"{negative:.0%} of the zeros are negative after the mask, {np.signbit(clean[clean == 0]).mean():.0%} after + 0.0"
)
print(f"DEFLATE leaves {sizes[0]:.1%} of the masked bytes and {sizes[1]:.1%} of the clean ones")
expect(0.4 < negative < 0.6, "another share of the zeros is negative")
expect(sizes[0] > 1.2 * sizes[1], "the negative zeros cost less than a fifth")
PYTHON
