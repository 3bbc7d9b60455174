"""Measurements, run as commands: `make bench-grade`, `make calibrate`."""
