"""The version of this release. The build of the package reads it from here."""

VERSION = "0.1.0"
