"""What holds for every test; the plugins are in tests/support/plugins."""

import signal

pytest_plugins = [
    "plugins.ci_skips",
    "plugins.fast_set",
    "plugins.figures",
    "plugins.own_directories",
    "plugins.parallel",
]

# What a shell without job control starts in the background ignores SIGINT, and so would all that
# the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
