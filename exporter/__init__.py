"""train -> export: iterative magnitude pruning in PyTorch; every sparse level leaves as ONNX."""
