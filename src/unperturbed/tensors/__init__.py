"""Norms, balls, and streams of random numbers."""
