"""The version of the package, read by all that write it into files."""

VERSION = "0.1.0"
