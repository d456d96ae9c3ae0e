"""A small TCP proxy between a test and its server that can misbehave: the faults of real networks, on demand."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


class _Pair:
    """The two sockets of a connection, and the two threads that forward between them.

    The sockets are closed when both threads have left: one that had yet to enter recv() when its socket was closed would
    read from whoever got the number next.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.ended = threading.Event()
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._users = 2

    def end(self, reset: bool) -> None:
        """Wake both threads, for them to leave. Whoever is first decides how the connection ends."""
        with self._lock:
            if self.ended.is_set():
                return
            self.ended.set()
        if reset:
            with suppress(OSError):
                self.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for sock, how in ((self.far, socket.SHUT_RDWR), (self.near, socket.SHUT_RD if reset else socket.SHUT_RDWR)):
            with suppress(OSError):
                sock.shutdown(how)  # wakes the thread that sits in recv()

    def leave(self) -> None:
        """A thread does nothing with the sockets any more."""
        self.end(reset=False)
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self.near.close()
        self.far.close()
        self.closed.set()


class Proxy:
    """Forwards 127.0.0.1:`port` to the server's port. The attributes below change what happens from then on.

    refuse(): nothing listens any more.    listen(): it does again.
    mode "pass": forward.                  mode "silent": swallow everything, in both directions (a half-open line).
    mode "delay": hold replies for `delay` seconds.
    mode "garbage": answer with bytes that aren't RESP.
    mode "drip": deliver replies byte by byte.
    mode "cut": send the first `cut` bytes of the next reply, then reset.
    mode "no-hello": answer HELLO as a server older than Redis 6 does, and forward the rest.
    reset_all(): reset every connection now.    close_all(): close them in order (FIN).
    """

    def __init__(self, server_port: int, port: int = 0) -> None:
        self.server_port = server_port
        self.port = port
        self.mode = "pass"
        self.delay = 0.0
        self.cut = 3
        self.accepted = 0
        self.turns = 0  # how often a request followed a reply: round trips
        self._replied = True
        self._pairs: list[_Pair] = []
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.listen()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def refuse(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the accept() in the other thread
            listener.close()
        self.reset_all()

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                far = socket.create_connection(("127.0.0.1", self.server_port), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(near, far)
            with self._lock:
                self._pairs = [other for other in self._pairs if not other.closed.is_set()] + [pair]
            self._start(self._requests, pair)
            self._start(self._replies, pair)

    def _requests(self, pair: _Pair) -> None:
        near, far = pair.near, pair.far
        with suppress(OSError):
            while data := near.recv(65536):
                self.turns += self._replied
                self._replied = False
                if self.mode == "no-hello" and b"HELLO" in data:
                    near.sendall(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n")
                elif self.mode == "garbage":
                    near.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n\x00\xff")
                elif self.mode != "silent":
                    far.sendall(data)
        pair.leave()

    def _replies(self, pair: _Pair) -> None:
        near, far = pair.near, pair.far
        with suppress(OSError):
            while data := far.recv(65536):
                self._replied = True
                mode = self.mode
                if mode == "delay":
                    pair.ended.wait(self.delay)  # the fault itself
                if mode == "drip":
                    for position in range(len(data)):
                        near.sendall(data[position : position + 1])
                elif mode == "cut":
                    near.sendall(data[: self.cut])
                    pair.end(reset=True)
                    break
                elif mode not in ("silent", "garbage"):
                    near.sendall(data)
        pair.leave()

    def _drop(self, reset: bool) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.end(reset)
        for pair in pairs:
            pair.closed.wait(2)

    def reset_all(self) -> None:
        self._drop(reset=True)

    def close_all(self) -> None:
        self._drop(reset=False)

    def close(self) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(2)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
