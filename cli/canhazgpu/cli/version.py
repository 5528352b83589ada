"""The version of this release: the one place that says it; the package is built with it."""

VERSION = "0.1.0"
