"""Slipway's release engine: what happens on one host between "here is a release" and "it serves, verified"."""

__version__ = "0.1.0"
