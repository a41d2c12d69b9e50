"""load -> serve: a portfolio behind the Open Inference Protocol; switched, updated and stopped, it loses no request.

Everything here needs the extra `onnx-shift[serve]`; `ray.py` needs `onnx-shift[ray]` besides.
"""
