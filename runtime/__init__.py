"""load -> switch: what runs on the device, on numpy and onnxruntime alone."""
