"""Slipway: a Kubernetes operator that launches machine-learning models."""

__version__ = "0.1.0"
