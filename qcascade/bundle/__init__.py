"""Bundles: a hybrid as one file of ONNX, circuits and weights that runs anywhere; written, checked, loaded and run."""
