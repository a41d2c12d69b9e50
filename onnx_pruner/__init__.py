"""prune -> verify -> profile -> pack: works on ONNX alone."""
