"""One row for each accelerator that sampler and trainer share. Whoever holds the row may use its memory."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from worker.jobs import LEASE


class GpuSlotQuerySet(models.QuerySet["GpuSlot"]):
    def claim(self, device: str, holder: str) -> bool:
        """Take or renew `device` for `holder`. False while another holds it."""
        self.get_or_create(device=device)
        free = Q(holder="") | Q(holder=holder) | Q(lease_until__lt=Now())
        return bool(self.filter(free, device=device).update(holder=holder, lease_until=Now() + LEASE))

    def release(self, device: str, holder: str) -> None:
        self.filter(device=device, holder=holder).update(holder="", lease_until=None, wanted_by="")

    def ask_for(self, device: str, holder: str) -> None:
        """Tell the present holder that `holder` waits; a sampler lets go of the memory when it sees this."""
        self.filter(device=device).exclude(holder=holder).update(wanted_by=holder)

    def asked_for(self, device: str, holder: str) -> bool:
        return self.filter(device=device, holder=holder).exclude(wanted_by="").exists()


class GpuSlot(models.Model):
    device = models.CharField(max_length=60, unique=True)
    holder = models.CharField(max_length=120, blank=True)
    wanted_by = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True)

    objects = GpuSlotQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.device}: {self.holder or 'free'}"
