"""Routing: circuits compiled for a target, and what they will come to there."""
