"""The fault-tolerant outlook studied: `spectra` of encoders in training, held against an `oracle`, sparse `training` with download and
re-upload, `tables`.
"""
