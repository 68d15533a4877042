"""Measured speed, as ratios of medians taken in turn."""
