"""A client of Redis Cluster that asks the server for no more than one of a single server does.

redis-py fetches the table of all commands (some 200 KB) in each process, to know where the keys of
a command are. Here it knows those that are used; for another one it fetches the table as ever.
"""

from __future__ import annotations

from typing import Any, cast

from redis._parsers import CommandsParser
from redis.cluster import RedisCluster

_KEYS_OF_COMMANDS = {
    (1, 1): (
        "get set hget hset hgetall hdel hlen hmget hscan hexists hkeys sadd smembers sismember"
        " scard sscan srem ttl pttl expire pexpire persist xadd xdel xlen xrange xrevrange xtrim"
        " llen lrange rpush lpop type dump restore"
    ),
    (1, -1): "del mget exists unlink",
    (1, 2): "blmove",
    (0, 0): "time ping info config role acl script cluster client readonly",
}
"""The positions of the first and the last key: as ``COMMAND`` has it, of Redis 6.2 to Valkey 9."""


class ClusterClient(RedisCluster):
    """redis-py's client, which knows the commands that are used."""

    def __init__(self, *given: Any, **named: Any) -> None:
        cast(Any, super()).__init__(*given, **named)
        self.commands_parser = cast(Any, _KeyFinder)(self)

    def command(self, **_options: Any) -> dict[str, dict[str, Any]]:
        """Return what the server's table says of the commands that are used."""
        return {
            name: _command(name, *positions)
            for positions, names in _KEYS_OF_COMMANDS.items()
            for name in names.split()
        }


class _KeyFinder(CommandsParser):
    """Finds the keys of ``XREAD`` here; for redis-py the server finds them, one by one."""

    def get_keys(self, redis_conn: Any, *args: Any) -> Any:
        if str(args[0]).upper() == "XREAD":
            streams = args.index(b"STREAMS") + 1
            return list(args[streams : streams + (len(args) - streams) // 2])
        return cast(Any, super()).get_keys(redis_conn, *args)


def _command(name: str, first: int, last: int) -> dict[str, Any]:
    return {
        "name": name,
        "arity": -1,
        "flags": [],
        "first_key_pos": first,
        "last_key_pos": last,
        "step_count": 1 if first else 0,
    }
