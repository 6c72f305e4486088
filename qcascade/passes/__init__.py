"""Passes: one step from a captured model to a decided plan, and the one that rewrites."""
