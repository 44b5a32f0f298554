"""One row for each accelerator that sampler and trainer share. Whoever holds the row may use its memory."""

from datetime import timedelta

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from worker.jobs import LEASE

HANDOVER = timedelta(seconds=10)


class GpuSlotQuerySet(models.QuerySet["GpuSlot"]):
    def claim(self, device: str, holder: str) -> bool:
        """Take or renew `device` for `holder`. False while another holds it or it is kept for one who waits."""
        self.get_or_create(device=device)
        free = Q(holder="", wanted_by__in=("", holder)) | Q(lease_until__lt=Now())
        asked = When(wanted_by=holder, then=Value(""))
        return bool(
            self.filter(Q(holder=holder) | free, device=device).update(
                holder=holder, wanted_by=Case(asked, default=F("wanted_by")), lease_until=Now() + LEASE
            )
        )

    def release(self, device: str, holder: str) -> None:
        """Free `device`. For a moment only the one who asked for it may take it."""
        self.filter(device=device, holder=holder).update(holder="", lease_until=Now() + HANDOVER)

    def ask_for(self, device: str, holder: str) -> None:
        """Tell the present holder that `holder` waits; a sampler lets go of the memory when it sees this."""
        self.filter(device=device).exclude(holder=holder).update(wanted_by=holder)

    def asked_for(self, device: str, holder: str) -> bool:
        """Whether somebody waits for what `holder` holds."""
        return self.filter(device=device, holder=holder).exclude(wanted_by="").exists()

    def held(self, device: str, holder: str) -> bool:
        return self.filter(device=device, holder=holder).exists()


class GpuSlot(models.Model):
    device = models.CharField(max_length=60, unique=True)
    holder = models.CharField(max_length=120, blank=True)
    wanted_by = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True)

    objects = GpuSlotQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.device}: {self.holder or 'free'}"
