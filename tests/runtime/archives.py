"""A small archive."""

import numpy as np

NOISE = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
