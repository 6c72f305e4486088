"""`qcascade study adapters`: full fine-tuning, LoRA, SoRA, prefix tuning and the amplitude adapter under one budget.

`runs` (what a run is), `sora` (gated low rank, proximal gradient), `methods` (a method put on a model), `sentences` (MiniLM classifies)
and `language` (a small causal language model, trained from scratch, changes its domain), `screening` (which runs), `tables`.
"""
