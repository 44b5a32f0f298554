"""Token counts come from the policy's own tokenizer."""

from pathlib import Path

import pytest

from labeling.models import Project, TokenCount
from modelzoo.tokenizer import load_tokenizer
from rlhf.models import ModelVersion
from worker import counting
from worker.tasks import mend

pytestmark = pytest.mark.django_db(transaction=True)


def test_all_that_wait_are_counted_at_once(project: Project, checkpoint: Path) -> None:
    texts = ["the cat sat on a mat", "쥐", "", "the cat sat on a mat and saw good fish"]
    assert [TokenCount.objects.ask("tiny", text) for text in texts] == [None] * 4
    counting.count_tokens(TokenCount.objects.earliest("pk").pk)
    tokenizer = load_tokenizer(checkpoint)
    expected = [len(tokenizer.encode_response(text, finished=True)) for text in texts]
    assert [TokenCount.objects.ask("tiny", text) for text in texts] == expected
    assert min(expected) == 1 and max(expected) > 5
    assert not TokenCount.objects.exclude(text="").exists()


def test_a_policy_that_is_not_there_fails_in_words(project: Project) -> None:
    TokenCount.objects.ask("nobody", "the cat")
    counting.count_tokens(TokenCount.objects.get().pk)
    assert "no policy “nobody”" in TokenCount.objects.get().error
    ModelVersion.objects.filter(name="tiny").update(archived_at=None)
    assert TokenCount.objects.ask("nobody", "the cat") is None


def test_a_count_that_was_lost_is_taken_back_and_old_ones_go(project: Project) -> None:
    TokenCount.objects.ask("tiny", "the cat")
    job = TokenCount.objects.claim(TokenCount.objects.get().pk)
    TokenCount.objects.filter(pk=job.pk).update(lease_until="2026-01-01T00:00:00Z")
    mend()
    assert TokenCount.objects.get().state == TokenCount.State.QUEUED
    TokenCount.objects.update(created_at="2026-01-01T00:00:00Z")
    mend()
    assert not TokenCount.objects.exists()
