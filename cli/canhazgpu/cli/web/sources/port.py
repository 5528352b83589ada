"""What pages ask of whoever reads the cluster for them: the part of `NodeService` that reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from canhazgpu.service.history import ExplainAnswer, ExplainRequest, ReportAnswer, ReportRequest
    from canhazgpu.service.nodes import CountersAnswer
    from canhazgpu.service.status import StatusAnswer, StatusRequest


class ClusterSource(Protocol):
    """See `NodeService`; its methods raise `CanhazgpuError`."""

    def status(self, request: StatusRequest) -> StatusAnswer:
        """See `NodeService.status`."""
        ...

    def explain(self, request: ExplainRequest) -> ExplainAnswer:
        """See `NodeService.explain`."""
        ...

    def report(self, request: ReportRequest) -> ReportAnswer:
        """See `NodeService.report`."""
        ...

    def counters(self) -> Iterator[CountersAnswer]:
        """See `NodeService.counters`."""
        ...
