"""Faults: which come when, how each is carried out, and the proof that it struck."""
