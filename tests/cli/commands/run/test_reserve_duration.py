"""How long `canhazgpu reserve` reserves where nobody says."""

from __future__ import annotations

import json

import pytest
from hosts.shared_host import SharedHost

pytestmark = pytest.mark.slow

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("maximum_s", "expected_s"),
    [(0.0, 8 * HOUR_S), (2 * HOUR_S, 2 * HOUR_S), (24 * HOUR_S, 8 * HOUR_S)],
)
def test_a_reservation_without_a_duration_lasts_no_longer_than_the_site_allows(
    host: SharedHost, people: tuple[str, ...], maximum_s: float, expected_s: float
) -> None:
    host.configure(run={"max_reserve_s": maximum_s})

    done = host.call("reserve", "--json", user=people[0])

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["duration_s"] == expected_s
    (held,) = host.view().reservations.values()
    assert held.expires_at is not None
    assert held.expires_at - held.granted_at == pytest.approx(expected_s, abs=1)


def test_a_duration_that_is_given_is_not_shortened(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    host.configure(run={"max_reserve_s": 2 * HOUR_S})

    done = host.call("reserve", "--duration", "8h", user=people[0])

    assert done.returncode == 2
    assert "this site allows (run.max_reserve_s)" in done.stderr
    assert not host.holders()
