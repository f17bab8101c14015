"""The version, in one place: `setup.cfg` reads it from here, and a source tree has it without being
installed."""

__version__ = "0.1.0"
