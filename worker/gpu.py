"""Sampler and trainer on one card: whoever holds its GpuSlot row may fill its memory. And how many cards there are.

Without SHARED_GPU (no card, or a card for each) nothing is claimed.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection

from rlhf.models import GpuSlot
from worker.leases import BEAT_SECONDS

logger = logging.getLogger(__name__)


def cards() -> int:
    """NVIDIA cards that this process may use; counted without torch, which whoever supervises has no need of."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([card for card in visible.split(",") if card.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


class SharedGpu:
    """The resident's side: holds the card for as long as its model is on it, and lets go when a trainer asks."""

    def __init__(self, holder: str, let_go: Callable[[], None]) -> None:
        self.holder, self._let_go = holder, let_go
        self._busy = threading.Lock()
        self._watch: threading.Thread | None = None

    @contextmanager
    def use(self) -> Iterator[bool]:
        """Whether the card may be used within this block."""
        if not settings.SHARED_GPU:
            yield True
            return
        with self._busy:
            ours = self.keep_or_let_go()
            if ours and self._watch is None:
                self._watch = threading.Thread(target=self._watch_forever, daemon=True, name="gpu")
                self._watch.start()
            yield ours

    def keep_or_let_go(self) -> bool:
        """Claim or renew the card, or free it where a trainer waits for it. Returns whether it is ours."""
        device = settings.SHARED_GPU
        if GpuSlot.objects.asked_for(device, self.holder):
            self._let_go()
            GpuSlot.objects.release(device, self.holder)
            logger.info("let go of %s", device)
            return False
        if GpuSlot.objects.claim(device, self.holder):
            return True
        self._let_go()  # where this process was frozen for so long that it was taken for dead
        return False

    def _watch_forever(self) -> None:
        """While a batch is sampled only renew: it ends by itself soon."""
        idle = threading.Event()
        while not idle.wait(BEAT_SECONDS):
            try:
                if self._busy.acquire(blocking=False):
                    try:
                        if GpuSlot.objects.held(settings.SHARED_GPU, self.holder):
                            self.keep_or_let_go()
                    finally:
                        self._busy.release()
                else:
                    GpuSlot.objects.claim(settings.SHARED_GPU, self.holder)
            except DatabaseError as error:
                logger.warning("the claim on %s was not renewed: %s", settings.SHARED_GPU, error)
                connection.close()
