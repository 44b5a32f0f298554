"""API tokens: one for each person, shown once, stored as a digest."""

import hashlib
from typing import Any

from auditlog.context import auditlog_value
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

from labeling.models import User


def issue_token(user: User) -> str:
    """A fresh API token of `user`, in place of the one before. Only its digest is stored: show it now or never."""
    Token.objects.filter(user=user).delete()
    secret = Token.generate_key()
    Token.objects.create(user=user, key=_digest(secret))
    return secret


def revoke_token(user: User) -> None:
    Token.objects.filter(user=user).delete()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:40]


class DigestTokenAuthentication(TokenAuthentication):
    """`Authorization: Token SECRET`, looked up by its digest: a stolen table opens nothing."""

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        user, token = super().authenticate_credentials(_digest(key))
        # The audit log's middleware ran before the token was read.
        auditlog_value.get({}).update(actor=user)
        return user, token
