"""SQLite where writers wait in a queue.

SQLite itself has none: who finds another writer at work sleeps, up to 100 ms at a time, and looks again, so that with
eight labelers the place is often empty while all sleep, and the unlucky wait for seconds. Here a transaction waits for
its turn first: among the threads of its process, then, in a lock of the kernel's on a file, among processes. Both wake
the next one at once. A single statement outside a transaction does as ever.
"""

import fcntl
import os
import threading
from collections import defaultdict
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

_turns: "defaultdict[str, threading.Lock]" = defaultdict(threading.Lock)


class DatabaseWrapper(base.DatabaseWrapper):
    _turn: "tuple[threading.Lock, int] | None" = None

    def _start_transaction_under_autocommit(self) -> None:
        self._wait_for_turn()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._end_turn()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        # Where it fails Django rolls back, which ends the turn as well.
        self._end_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _wait_for_turn(self) -> None:
        name = str(self.settings_dict["NAME"])
        if self._turn or self.is_in_memory_db():
            return
        lock = _turns[name]
        if not lock.acquire(timeout=self._patience()):
            raise OperationalError("database is locked")
        try:
            file = os.open(f"{name}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:
            lock.release()
            raise
        self._turn = lock, file

    def _end_turn(self) -> None:
        if self._turn:
            lock, file = self._turn
            self._turn = None
            os.close(file)
            lock.release()

    def _patience(self) -> float:
        options: dict[str, Any] = self.settings_dict["OPTIONS"]
        return float(options.get("timeout", 5))
