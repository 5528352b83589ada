"""The Unix users of one demonstration: its own, whoever else is on the host."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from demo_cluster import CommandFailed, ensure_users

MOST_TRIES = 50


@dataclass(frozen=True, slots=True)
class People:
    """Two who use Slurm, and one who does not."""

    alice: str
    bob: str
    carol: str

    def names(self) -> tuple[str, ...]:
        return astuple(self)


def create_people() -> People:
    """Create three users; where a name is taken, by a person or another demonstration, alice-2."""
    return People(*(create_user(name) for name in ("alice", "bob", "carol")))


def create_user(name: str) -> str:
    problem = "all names are taken"
    for number in range(1, MOST_TRIES):
        candidate = name if number == 1 else f"{name}-{number}"
        try:
            if ensure_users([candidate]):
                return candidate
        except CommandFailed as exc:
            # Somebody took the name between the look and the creation.
            problem = str(exc)
    raise CommandFailed(f"no user like {name} could be created: {problem}")
