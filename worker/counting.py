"""Counting tokens for the pages, which have no tokenizer. The one used last stays in memory."""

from functools import lru_cache
from pathlib import Path

from labeling.models import TokenCount
from modelzoo.tokenizer import Tokenizer, TokenizerError, load_tokenizer
from worker.jobs import LostLease
from worker.sampling import PolicyUnusable, usable_path

MOST = 200  # requests that one message has answered


def count_tokens(job_id: int) -> None:
    """Answer request `job_id` and others that wait."""
    waiting = TokenCount.objects.runnable().exclude(pk=job_id).order_by("-pk").values_list("pk", flat=True)
    for pk in (job_id, *waiting[: MOST - 1]):  # the newest first: older ones are of texts that have grown since
        if job := TokenCount.objects.claim(pk):
            _answer(job)


def _answer(job: TokenCount) -> None:
    try:
        tokenizer = _tokenizer(usable_path(job.policy_name))
        job.counted(len(tokenizer.encode_response(job.text, finished=True)))
    except (PolicyUnusable, TokenizerError) as error:
        job.fail(str(error))
    except LostLease:
        pass  # somebody else has answered it


@lru_cache(maxsize=4)
def _tokenizer(path: Path) -> Tokenizer:
    return load_tokenizer(path)
