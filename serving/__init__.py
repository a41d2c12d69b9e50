"""load -> serve: a portfolio behind the Open Inference Protocol, switched, updated and drained without losing a request.

Everything here needs the extra `onnx-shift[serve]`; `ray.py` needs `onnx-shift[ray]` besides.
"""
