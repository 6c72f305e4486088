"""Bundles: a hybrid as ONNX, circuits and weights in one directory or archive that holds no code."""
