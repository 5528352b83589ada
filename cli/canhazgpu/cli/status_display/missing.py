"""What a status lacks because the store did not serve, or this node's book was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError, error_text

if TYPE_CHECKING:
    from canhazgpu.service.status import StatusAnswer


def missing_error(answer: StatusAnswer) -> CanhazgpuError | None:
    """Return the error that says what is missing, None if nothing is."""
    if answer.store_fault is None:
        return answer.book_fault
    return type(answer.store_fault)(
        f"{answer.store_fault}; shown is {answer.nodes[0].node} alone, without the"
        " reservations that only the store has",
        next_step=answer.store_fault.next_step,
    )


def missing_text(answer: StatusAnswer) -> str:
    """Return the error as one line with the next step, "" if nothing is missing."""
    error = missing_error(answer)
    return "" if error is None else error_text(error)
