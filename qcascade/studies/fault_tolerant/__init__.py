"""The fault-tolerant outlook studied: `spectra` of encoders in training, sparse `training` with download and re-upload, `tables`."""
