"""A line between client and server that can be cut at a chosen message."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards everything, until `cut` was asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._left = -1
        self._forwards = True
        self._sockets: list[socket.socket] = []
        self._hanging: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, requests: int, *, forwards: bool) -> None:
        """After so many requests from now, with the last of them forwarded (and its answer lost) or not."""
        self._forwards, self._left = forwards, requests

    def hang(self) -> None:
        """The lines that there are stay open, and nothing passes any more; new ones are sound."""
        self._hanging = list(self._sockets)

    def close(self) -> None:
        self._listener.close()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                lost = threading.Event()
                threading.Thread(target=self._requests, args=(client, server, lost), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, server, lost), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                if client in self._hanging:
                    continue
                if self._left > 0:
                    self._left -= 1
                if self._left == 0:
                    self._left = -1
                    if not self._forwards:
                        _end(client, server)
                        return
                    lost.set()
                server.sendall(data)
        _end(client, server)

    def _answers(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if lost.is_set():
                    break
                client.sendall(data)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
