"""The servers that a client talks to: their identity, and a breaker for each.

Owns telling a single server, a cluster and a Sentinel's master apart, their names in messages, and which server a key
is sent to (in a cluster, the primary of its slot). It must never send a command, except the PING that a breaker asks
for, and never show a password.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any, Protocol

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.sentinel
import redis.connection
import redis.sentinel
from redis.exceptions import RedisClusterException

from fastcache.breaker import Breaker, breaker_of

__all__ = ["Servers", "Target", "identify"]

_CLUSTERS = (redis.RedisCluster, redis.asyncio.RedisCluster)
_TLS = (redis.connection.SSLConnection, redis.asyncio.connection.SSLConnection)
_SENTINELS = (redis.sentinel.SentinelConnectionPool, redis.asyncio.sentinel.SentinelConnectionPool)


def identify(client: Any) -> tuple[Hashable, str]:
    """The server's identity, by which caches share a breaker, and its name in messages (never with a password)."""
    if isinstance(client, _CLUSTERS):
        nodes = sorted(str(name) for name in client.nodes_manager.startup_nodes)
        return ("cluster", *nodes, *_tls(_options_of_cluster(client))), f"cluster {nodes[0] if nodes else ''}"
    pool: Any = client.connection_pool
    if _has_sentinels(client):
        return _address_of_sentinel(pool), f"{pool.service_name} of Sentinel"
    return _address(_options_of(pool))


def _has_sentinels(client: Any) -> bool:
    return isinstance(client.connection_pool, _SENTINELS)


def _options_of(pool: Any) -> dict[str, Any]:
    return {**pool.connection_kwargs, "connection_class": pool.connection_class}


def _options_of_cluster(client: Any) -> dict[str, Any]:
    options = getattr(client, "connection_kwargs", None)  # of an asyncio client
    return dict(client.nodes_manager.connection_kwargs if options is None else options)


def _tls(options: dict[str, Any]) -> tuple[Hashable, ...]:
    """What decides whether a client that finds the server can talk to it: TLS or not, and by which certificates."""
    kind = options.get("connection_class")
    if not options.get("ssl") and not (isinstance(kind, type) and issubclass(kind, _TLS)):
        return ()
    named = sorted((name, str(value)) for name, value in options.items() if name.startswith("ssl_") and value is not None)
    return ("tls", *(pair for pair in named if pair[0] != "ssl_password"))


def _address_of_sentinel(pool: Any) -> Hashable:
    sentinels = pool.sentinel_manager.sentinels
    watchers = sorted(str(_address(_options_of(sentinel.connection_pool))[0]) for sentinel in sentinels)
    return ("sentinel", pool.service_name, bool(pool.is_master), *watchers, *_tls(_options_of(pool)))


def _address(options: dict[str, Any]) -> tuple[Hashable, str]:
    path = options.get("path")
    if path is not None:
        return ("unix", str(path)), str(path)
    host, port = options.get("host") or "localhost", int(options.get("port") or 6379)
    return ("tcp", host, port, *_tls(options)), f"{host}:{port}"


def _is_bytes_client(client: Any) -> bool:
    get_encoder = getattr(client, "get_encoder", None)
    encoder = get_encoder() if get_encoder is not None else client.encoder
    return not encoder.decode_responses


class Target(Protocol):
    """A server that commands go to: its breaker, and how to ask it for a PONG."""

    breaker: Breaker

    def ping(self) -> Any:
        """Ask for a PONG, past the breaker. Raises unless one came."""


class Servers:
    """What both links have in common: one target, and in a cluster one more for each primary."""

    asynchronous: bool
    client: Any

    def ping(self) -> Any:
        """Ask for a PONG, past the breaker. Raises unless one came. In a cluster, of any primary."""

    def __init__(self, client: Any, breaker: Breaker) -> None:
        self.breaker = breaker
        self.cluster = isinstance(client, _CLUSTERS)
        self.finder: Hashable = client if self.cluster or _has_sentinels(client) else breaker
        """Caches with the same one send to the same servers: the client, where that finds out who is primary."""
        self.bytes_keys = _is_bytes_client(client)
        self.closed = False
        self._nodes: dict[str, Target] = {}

    def at(self, name: bytes) -> Target:
        """The target that holds a key: in a cluster the primary of its slot, as far as the client knows."""
        if not self.cluster:
            return self
        try:
            return self.node(self.client.get_node_from_key(name))
        except RedisClusterException:  # no slots known yet, or none covers the key: the cluster as a whole
            return self

    def primary_of(self, slot: int) -> str | None:
        """In a cluster, the name of the node that has a slot, as far as the client knows."""
        nodes = self.client.nodes_manager.slots_cache.get(slot)
        return nodes[0].name if nodes else None

    def slot_of(self, name: str) -> int | None:
        """In a cluster, some slot that a node has. O(slots)."""
        slots = self.client.nodes_manager.slots_cache
        return next((slot for slot, nodes in list(slots.items()) if nodes and nodes[0].name == name), None)

    def node(self, node: Any) -> Target:
        target = self._nodes.get(node.name)
        if target is None:
            target = self._nodes.setdefault(node.name, _Node(self, node))
        return target

    def state(self) -> str:
        """The worst state of a breaker that this cache can run into."""
        states = {self.breaker.state, *(target.breaker.state for target in list(self._nodes.values()))}
        return next(state for state in ("open", "half-open", "closed") if state in states)

    def _stop_probing(self) -> list[Any]:
        probes = [target.breaker.stop_probing(target) for target in (self, *self._nodes.values())]
        return [probe for probe in probes if probe is not None]


class _Node:
    """A primary of a cluster."""

    def __init__(self, link: Servers, node: Any) -> None:
        self._link = weakref.ref(link)
        self._name = node.name
        self.breaker = breaker_of(*_address({**_options_of_cluster(link.client), "host": node.host, "port": node.port}))

    def ping(self) -> Any:
        """Ask this node, as the client knows it by now. One that left the cluster stands in nobody's way any more."""
        link = self._link()
        node = None if link is None else link.client.get_node(node_name=self._name)
        if link is None or node is None:
            return _nothing() if link is not None and link.asynchronous else None
        return link.client.execute_command("PING", target_nodes=node)


async def _nothing() -> None:
    pass
