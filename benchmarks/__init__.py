"""Measurements, each with the machine it ran on, and proofs (`make proofs`)."""
