"""Check, repair and trim the indexes of the store; for administrators of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError, StoreError
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.indexes.check import IndexCheck
from canhazgpu.ledger.store.indexes.trim import IndexTrim
from canhazgpu.ledger.store.nodes.node_views import read_node_names
from canhazgpu.ledger.store.session import StoreSession
from canhazgpu.node.users import require_administrator
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.service.index import IndexAnswer, IndexFinding, IndexRequest, IndexTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from canhazgpu.allocation.progress import Progress
    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.in_process.adapters import Adapters


def look_after_indexes(
    adapters: Adapters, request: IndexRequest, progress: Progress
) -> IndexAnswer:
    """See `NodeService.indexes`."""
    require_administrator(adapters.caller(), "look after the indexes")
    store = adapters.effective_config().config.store
    try:
        return _done(store, request, progress)
    except StoreError as exc:
        if "denies this" not in str(exc):
            raise
        raise StoreError(
            f"{exc}; the indexes take the administrator's login: --set store.login_file=FILE"
        ) from exc
    finally:
        progress.done()


def _done(store: StoreConfig, request: IndexRequest, progress: Progress) -> IndexAnswer:
    session = StoreSession(store, Role.WRITE)
    if request.task is IndexTask.TRIM:
        if request.nodes:
            raise InputError("the indexes are trimmed for all nodes: leave --node out")
        trimmed = IndexTrim(session, store.prefix, store.history_days).trim()
        return IndexAnswer(request.task, removed_keys=trimmed.keys, removed_members=trimmed.members)
    nodes = _nodes(session, store.prefix, request.nodes)
    check = IndexCheck(session, store.prefix, store.history_days)
    repairs = request.task is IndexTask.REPAIR
    damaged = check.damaged_keys()
    if repairs:
        check.remove(damaged)
    findings = [IndexFinding(key, "the key is no set", repaired=repairs) for key in damaged]
    unmarked = []
    for number, node in enumerate(nodes, 1):
        progress.show(
            f"comparing {node}, {number} of {len(nodes)}", f"comparing {len(nodes)} nodes"
        )
        found, is_marked = _compared(check, node, repairs=repairs)
        findings += found
        if not is_marked:
            unmarked.append(node)
    return IndexAnswer(request.task, len(nodes), tuple(findings), tuple(unmarked))


def _compared(check: IndexCheck, node: str, *, repairs: bool) -> tuple[list[IndexFinding], bool]:
    """Return what differs of the node, and whether its entries count as complete in the end."""
    found = check.differences(node)
    is_marked = check.is_marked(node)
    is_repaired = False
    if repairs and (found.problems or not is_marked):
        check.repair(found)
        is_repaired = not check.differences(node).problems
        is_marked = check.is_marked(node)
    return [IndexFinding(node, one, repaired=is_repaired) for one in found.problems], is_marked


def _nodes(session: StoreSession, prefix: str, named: Sequence[str]) -> list[str]:
    """Return the named nodes, else all; raises `InputError` for one that is not listed."""
    with session.client() as client:
        known = sorted(read_node_names(client, prefix))
    if not named:
        return known
    nodes = [name for text in named for name in expand_hostlist(text)]
    for name in nodes:
        if name not in known:
            raise InputError(
                f"the ledger knows no node {name!r}; 'canhazgpu admin nodes' shows all it knows"
            )
    return nodes
