"""A laboratory for the mechanisms of adversarial robustness."""

__version__ = "0.1.0"
