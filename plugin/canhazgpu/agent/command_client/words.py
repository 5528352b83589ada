"""What the words of a command line say, as far as it has to be known before click is imported."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT_COMMANDS = (
    "admin",
    "events",
    "explain",
    "extend",
    "queue",
    "release",
    "report",
    "reserve",
    "run",
    "status",
    "validate",
)
"""What the node's agent carries out."""
ASKED_AGAIN = ("reserve", "run")
"""Commands that are asked again where the agent ended: the same request gets the same grant."""


class Words:
    """What the words of the command line say to this module."""

    command = ""
    config_file = ""
    node = ""
    is_configured = False
    """Whether --config or --set stands before the command."""


def completed_words(variables: "Mapping[bytes, bytes]") -> "list[str]":
    """Return the words of the command line that a shell completes, without the program's name."""
    if not variables.get(b"_CANHAZGPU_COMPLETE", b"").endswith(b"_complete"):
        return []
    return variables.get(b"COMP_WORDS", b"").decode("utf-8", "replace").split()[1:]


def words_of(arguments: "list[str]") -> Words:
    """Return what the words say; click parses them again where they are carried out."""
    found = Words()
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--config", "--set"):
            found.is_configured = True
            given = value if equals else next(words, "")
            found.config_file = given if name == "--config" else found.config_file
        elif found.command and name == "--node":
            found.node = value if equals else next(words, "")
        elif word == "--" or (found.command == "run" and not word.startswith("-")):
            break
        elif not found.command and not word.startswith("-"):
            found.command = word
    return found


def is_live_view(words: Words, arguments: "list[str]") -> bool:
    """Return whether it is a view that a terminal shows, and whose keys are read."""
    watches = words.command == "status" and any(one.startswith("--watch") for one in arguments)
    return watches and not {"-j", "--json"}.intersection(arguments)


def command_of_run(words: Words, arguments: "list[str]") -> "list[str]":
    """Return the command that is to be run, where the words say for certain which it is."""
    if words.command != "run" or "--" not in arguments[:-1]:
        return []
    return arguments[arguments.index("--") + 1 :]
