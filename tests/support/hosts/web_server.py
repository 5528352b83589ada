"""`canhazgpu web` as a process of its own, and a client that asks it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

PROGRAM = (sys.executable, "-I", "-m", "canhazgpu.cli.entry")
END_LIMIT_S = 60.0
ASK_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class WebServer:
    """The page of a store, or with "" of what it finds by itself; a context manager.

    `settings` are keys of the configuration, `variables` further ones of the environment, `user` is
    a uid.
    """

    store_url: str
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    user: int | None = None
    address: str = ""
    log: str = ""

    def __enter__(self) -> WebServer:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "CANHAZGPU"))
        }
        settings = {"web.poll_s": "1", **self.settings}
        if self.store_url:
            settings["store.url"] = self.store_url
            kept["CANHAZGPU_CONFIG"] = "/dev/null"
        words = [word for one in settings.items() for word in ("--set", "=".join(one))]
        self._process = subprocess.Popen(
            [*PROGRAM, *words, "web", "--listen", f"127.0.0.1:{self.port}"],
            env={**kept, **self.variables},
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else (),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "http://" in line:
                self.address = line.split()[-1].rstrip("/")
                self.port = urllib.parse.urlsplit(self.address).port or 0
                return self
            self.log += line
        raise AssertionError(f"it ended: {self.log}")

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status; what it wrote is in `log`."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            _, rest = self._process.communicate(timeout=END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, rest = self._process.communicate()
            rest += "\nit did not end"
        except ValueError:
            rest = ""
        self.log += rest
        return self._process.returncode

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask as a browser: again where the page says that it could not be made yet."""
        while "refresh" in (answer := self.ask_once(path, method, **headers)).headers:
            time.sleep(0.1)
        return answer

    def ask_once(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ASK_LIMIT_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8")
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, text)
        finally:
            connection.close()
