"""The client of people's commands: sends what was typed to the node's agent, writes the answer.

The installed program calls it before it imports anything else. Starting Python is most of its time,
so it imports what is built into Python alone. Where there is no agent, it returns, and the program
goes on in its own process.
"""

import errno
import posix
import time

from canhazgpu.agent.agent_socket import (
    CONFIG_VARIABLE,
    NODE_NAME_VARIABLES,
    SOCKET_VARIABLE,
    STATE_DIR_VARIABLE,
    absent_agent,
    agent_socket,
)
from canhazgpu.agent.client_connection import AgentBusy
from canhazgpu.agent.command_client.caller import is_terminal
from canhazgpu.agent.command_client.exchange import AgentEnded, AgentRefuses, ask
from canhazgpu.agent.command_client.outcome import (
    SIGINT,
    SIGPIPE,
    end_by_signal,
    fail,
    finish,
    pass_on,
    require_executable,
)
from canhazgpu.agent.command_client.words import (
    AGENT_COMMANDS,
    ASKED_AGAIN,
    Words,
    command_of_run,
    completed_words,
    is_live_view,
    words_of,
)
from canhazgpu.agent.hook_client import NotServed

COMPLETION = b"_CANHAZGPU_COMPLETE"
RETRY_S = 60.0
"""Longest time to wait for an agent that is busy with this user's requests, or that starts anew."""
PAUSE_S = 0.2
START_WAIT_S = 5.0
"""Longest time for an agent to start, where there is a place for its socket."""
STARTING = "the node's agent does not answer yet"
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EACCES, errno.ELOOP)


def ask_agent_first(arguments: "list[str]") -> None:
    """Have the command carried out, and end with its exit status, or become its command.

    Returns where this process is to do it itself: there is no agent, the command is none of the
    agent's, or root named another configuration. Nothing was done then.
    """
    words = words_of(completed_words(posix.environ) if COMPLETION in posix.environ else arguments)
    path = agent_for(words)
    if not path or is_live_view_on_terminal(words, arguments):
        return
    if COMPLETION not in posix.environ and (command := command_of_run(words, arguments)):
        require_executable(command)
    try:
        _Asking(path, words.command in ASKED_AGAIN).run(arguments)
    except KeyboardInterrupt:
        pass_on(2, "\n")
        end_by_signal(SIGINT)
    except BrokenPipeError:
        end_by_signal(SIGPIPE)
    except AgentRefuses as exc:
        fail(exc.strerror or str(exc))


def agent_for(words: Words) -> str:
    """Return the socket of the agent that is to carry this out, "" for none."""
    if words.command not in AGENT_COMMANDS:
        return ""
    if words.is_configured and posix.geteuid() == 0:
        return ""
    names = (SOCKET_VARIABLE, CONFIG_VARIABLE, STATE_DIR_VARIABLE, *NODE_NAME_VARIABLES)
    found = ((name, posix.environ.get(name.encode())) for name in names)
    variables = {
        name: value.decode("utf-8", "surrogateescape") for name, value in found if value is not None
    }
    path = agent_socket(variables, words.config_file, words.node)
    # Root asks the store itself where no agent runs; others have no right to it.
    return path or ("" if posix.geteuid() == 0 else absent_agent(variables))


def is_live_view_on_terminal(words: Words, arguments: "list[str]") -> bool:
    """Return whether this process has to show the answers: it reads the terminal's keys."""
    on_terminal = is_terminal(1) and posix.environ.get(b"TERM") != b"dumb"
    return on_terminal and is_live_view(words, arguments)


def is_directory(path: str) -> bool:
    """Return whether there is a directory that this user can see."""
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


class _Asking:
    """Asks until there is an outcome, and once more where that does no harm."""

    def __init__(self, path: str, is_asked_again: bool) -> None:
        self._path = path
        self._is_asked_again = is_asked_again
        self._is_found = False
        """Whether an agent was there: it is waited for then, and nobody goes on without it."""
        self._began = False
        self._told = False
        self._ends_at = time.monotonic() + RETRY_S
        waits = posix.geteuid() != 0 and is_directory(path.rpartition("/")[0])
        self._is_named = posix.geteuid() != 0 and SOCKET_VARIABLE.encode() in posix.environ
        self._starts_until = time.monotonic() + (START_WAIT_S if waits else 0.0)

    def run(self, arguments: "list[str]") -> None:
        """End with the outcome; returns where no agent can be asked."""
        while why := self._try(arguments):
            if time.monotonic() >= self._ends_at:
                fail(why)
            if not self._told and why is not STARTING:
                pass_on(2, f"canhazgpu: {why}; trying again for {RETRY_S:g} s\n")
                self._told = True
            time.sleep(PAUSE_S)

    def _try(self, arguments: "list[str]") -> str:
        """Return why it has to be tried again, "" where there is nobody to ask."""
        try:
            for outcome in ask(self._path, arguments):
                self._began = self._is_found = True
                # The wait for GPUs may be long; what counts is how long nobody has answered.
                self._ends_at = time.monotonic() + RETRY_S
                finish(outcome)
        except AgentBusy:
            self._is_found = True
            return "the node's agent serves as many requests as it takes"
        except NotServed:
            return "no agent serves this node any more" if self._is_found else ""
        except (BrokenPipeError, AgentRefuses):
            raise
        except AgentEnded:
            self._is_found = True
            why = "the node's agent ended before it had answered"
        except OSError as exc:
            if exc.errno in ABSENT and not self._is_found:
                return self._without_agent()
            why = f"the node's agent gives no answer: {exc.strerror or exc}"
        if self._began and not self._is_asked_again:
            fail(why)
        return why

    def _without_agent(self) -> str:
        """Return why to wait for an agent that was never there, "" where this process goes on."""
        if time.monotonic() < self._starts_until:
            return STARTING
        if self._is_named:
            # The configuration may not be for this user, and the default store is nobody's.
            fail(f"no agent answers at {self._path}")
        return ""
