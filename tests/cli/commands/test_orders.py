"""`release --node` as an order, as a program of a user with the login for orders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ledger_samples import gpus, observation
from polling import poll_until
from servers.private_redis import PrivateRedis
from servers.store_users import add_store_users, url_of_user

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import order_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.ledger.values import Claim
from canhazgpu.people.holdings import Holding
from canhazgpu.service.holdings import ReleaseAnswer
from canhazgpu.service.order_answers import OrderAnswer, answer_to_text

pytestmark = pytest.mark.slow
RUN = "from canhazgpu.cli.main import main; main()"
CLAIM = Claim("manual:1", "manual", "al\x1b[2Jice", os.getuid())


class Site:
    """A node that has looked for orders, and answers as the test says."""

    def __init__(self, server: PrivateRedis) -> None:
        self.server = server
        store = StoreConfig(url=url_of_user(server, "node", "n1"))
        self.orders = OrderStore(store, Role.WRITE)
        RedisLedger(store, Role.WRITE).reserve_given(CLAIM, gpus(0), observation("n1"))
        self.orders.take("n1", OrderReaderKind.CHECK)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments, "--node", "n1"],
            env={
                **os.environ,
                "CANHAZGPU_STORE_URL": url_of_user(self.server, "order"),
                "CANHAZGPU_NODE_NAME": "login1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As a shell starts a program in the foreground.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )

    @property
    def waits(self) -> bool:
        with self.server.client() as direct:
            return bool(direct.llen(order_keys("n1").orders))

    def answered(self, answer: OrderAnswer | InputError, *arguments: str) -> tuple[int, str, str]:
        """Run the command; the node answers so."""
        started = self.start(*arguments)
        try:
            poll_until(lambda: self.waits)
            taken = self.orders.take("n1", OrderReaderKind.CHECK)
            assert taken is not None
            self.orders.answer("n1", taken, answer_to_text(answer))
            output, errors = started.communicate(timeout=60)
        finally:
            started.kill()
        return started.returncode, output, errors


@pytest.fixture
def site() -> Iterator[Site]:
    with PrivateRedis(tcp=True) as server, server.client() as direct:
        add_store_users(direct, ["n1"])
        yield Site(server)


def test_what_the_node_did_is_printed_as_if_it_was_done_here(site: Site) -> None:
    done = ReleaseAnswer("n1", {"GPU-0": "0"}, (Holding(CLAIM, gpus(0)),))

    status, output, errors = site.answered(done, "release")

    assert (status, errors) == (0, "")
    assert output.startswith("released GPU 0 of n1: alice")


def test_a_refusal_is_an_error_of_the_command(site: Site) -> None:
    status, output, errors = site.answered(InputError("GPU 0 is bob's\x1b[2J"), "release")

    assert (status, output) == (2, "")
    assert errors == "Error: GPU 0 is bob's\n"


def test_ctrl_c_says_until_when_it_may_still_happen(site: Site) -> None:
    started = site.start("release")
    try:
        poll_until(lambda: site.waits)
        os.kill(started.pid, signal.SIGINT)
        output, errors = started.communicate(timeout=60)
    finally:
        started.kill()

    assert (started.returncode, output) == (-signal.SIGINT, "")
    assert "interrupted: n1 may still carry the order out, until " in errors
