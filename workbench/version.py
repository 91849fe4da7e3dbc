"""The version, read by `Result.meta` without importing the package's public names."""

__version__ = "0.1.0.dev0"
