"""Sampler and trainer on one card. These tests are about the row; no card is needed for them."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from rlhf.models import GpuSlot
from worker.gpu import SharedGpu

pytestmark = pytest.mark.django_db(transaction=True)

slots = GpuSlot.objects


def test_one_holder_at_a_time() -> None:
    assert slots.claim("gpu", "sampler")
    assert not slots.claim("gpu", "run 1")
    assert slots.claim("gpu", "sampler")  # renews
    assert slots.claim("another gpu", "run 1")


def test_a_card_whose_holder_died_is_taken_after_its_lease() -> None:
    slots.claim("gpu", "sampler")
    slots.filter(device="gpu").update(lease_until=timezone.now() - timedelta(seconds=1))
    assert slots.claim("gpu", "run 1")


def test_a_freed_card_is_kept_for_who_asked_for_it() -> None:
    slots.claim("gpu", "sampler")
    slots.ask_for("gpu", "run 1")
    assert slots.asked_for("gpu", "sampler")
    slots.release("gpu", "sampler")
    assert not slots.claim("gpu", "sampler")
    assert slots.claim("gpu", "run 1")
    assert not slots.asked_for("gpu", "run 1")


def test_a_card_is_not_kept_for_ever_for_one_who_never_comes() -> None:
    slots.claim("gpu", "sampler")
    slots.ask_for("gpu", "run 1")
    slots.release("gpu", "sampler")
    slots.filter(device="gpu").update(lease_until=timezone.now() - timedelta(seconds=1))
    assert slots.claim("gpu", "sampler")


def test_a_card_nobody_asked_for_is_free_at_once() -> None:
    slots.claim("gpu", "run 1")
    slots.release("gpu", "run 1")
    assert slots.claim("gpu", "sampler")


def test_the_sampler_lets_go_of_the_card_when_a_trainer_asks(settings: Any) -> None:
    settings.SHARED_GPU = "gpu"
    unloaded: list[bool] = []
    gpu = SharedGpu("sampler", let_go=lambda: unloaded.append(True))
    assert gpu.keep_or_let_go()
    assert unloaded == []
    slots.ask_for("gpu", "run 1")
    assert not gpu.keep_or_let_go()
    assert unloaded == [True]
    assert slots.claim("gpu", "run 1")
    assert not gpu.keep_or_let_go()
    slots.release("gpu", "run 1")
    assert gpu.keep_or_let_go()


def test_nothing_is_claimed_where_no_card_is_shared() -> None:
    with SharedGpu("sampler", let_go=lambda: None).use() as ours:
        assert ours
    assert not slots.exists()
