"""The version, in one place: `setup.cfg` reads it from here, and a source tree needs no installation."""

__version__ = "0.1.0"
