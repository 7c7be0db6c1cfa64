"""Compress a trained model, prove what it costs and what it gains, and choose what to ship."""

__version__ = "0.1.0"
