"""Circuits: templates, ansätze, encodings and observables, in pytket."""
