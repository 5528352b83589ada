"""The version of this release. The build of the package reads it from here."""

VERSION = "0.1.0"

RELEASE_DATE = "2026-11-29"
"""The day of this release, for the manual pages."""
