"""Who may ask at all. Which rows they then see is decided by the QuerySets (`visible_to`, `curated_by`, ...)."""

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from labeling.models import Role, User


def sees_models(user: object) -> bool:
    """Whether `user` may know which model wrote what. Labelers judge blind."""
    return isinstance(user, User) and user.has_role(Role.CURATOR, Role.OPS, Role.ADMIN)


def asker(request: Request) -> User:
    """Who asks, behind a permission that lets nobody in who is logged out."""
    assert isinstance(request.user, User)
    return request.user


class IsLabeler(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.user, User) and request.user.has_role(Role.LABELER)


class CuratesOrReads(BasePermission):
    """Curators and admins change; ops look, as they may in the console."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method in SAFE_METHODS:
            return sees_models(request.user)
        return isinstance(request.user, User) and request.user.has_role(Role.CURATOR, Role.ADMIN)
