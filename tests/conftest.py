"""What holds for every test; the plugins are in tests/support."""

pytest_plugins = ["ci_skips", "parallel"]
