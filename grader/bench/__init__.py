"""Measurements, run as commands: `make bench-grade`, `make bench-seeds`."""
