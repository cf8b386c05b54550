"""The version, in the one place that the package's metadata and `deflow doctor` read."""

__version__ = "0.1.0.dev0"
