"""The version of the project, for its packages and for setup.py."""

__version__ = "0.1.0"
