"""The version, in one place: `setup.cfg` reads it from here, and a source tree knows it without
installation."""

__version__ = "0.1.0"
