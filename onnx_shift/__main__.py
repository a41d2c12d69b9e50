"""`python -m onnx_shift`, which is also what `torchrun -m onnx_shift` starts."""

from onnx_shift.cli import main

main()
