"""Names under which labelers leave the site."""

import hashlib
import hmac
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from labeling.models.answer import Answer


def pseudonym(user_id: int) -> str:
    """The same for one person everywhere in this installation, and not to be turned back without its secret key."""
    return f"labeler-{_digest(f'labeler:{user_id}')}"


def pseudonym_of(answer: "Answer") -> str:
    """Of the labeler, or of the annotator of an import: the same for one annotator of one source."""
    if answer.labeler_id:
        return pseudonym(answer.labeler_id)
    return f"import-{_digest(f'import:{answer.source}:{answer.annotator}')}"


def _digest(name: str) -> str:
    return hmac.new(settings.SECRET_KEY.encode(), name.encode(), hashlib.sha256).hexdigest()[:12]
