"""People. What someone may do is decided by roles (groups) and project membership; the
QuerySets' `visible_to`, `curated_by` and `labeled_by` put both into queries."""

from collections.abc import Iterable

from django.contrib.auth.models import AbstractUser, Group
from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    LABELER = "labeler", _("labeler")
    CURATOR = "curator", _("curator")
    OPS = "ops", _("ops")
    ADMIN = "admin", _("admin")


class User(AbstractUser):
    class Theme(models.TextChoices):
        AUTO = "auto", _("as the system")
        LIGHT = "light", _("light")
        DARK = "dark", _("dark")

    language = models.CharField(_("language of the pages"), max_length=8, blank=True)
    theme = models.CharField(_("appearance"), max_length=8, choices=Theme, default=Theme.AUTO)
    keys = models.JSONField(default=dict, blank=True, editable=False)
    """Keys of the task pages, by action, where they differ from the defaults: see labeling/keys.py."""
    single_keys = models.BooleanField(
        _("single keys act on the task pages"), default=True, help_text=_("Those with Ctrl or Alt always do.")
    )

    @cached_property
    def roles(self) -> frozenset[str]:
        """Names of the roles held. A superuser is an admin and may do everything."""
        if not self.is_active:
            return frozenset()
        names = set(self.groups.values_list("name", flat=True))
        return frozenset(names | set(Role.values)) if self.is_superuser else frozenset(names)

    def set_roles(self, roles: Iterable[str]) -> None:
        """Hold exactly these roles. Ops and admins may enter the admin pages, superusers keep what they have."""
        names = [Role(role).value for role in roles]
        self.groups.set([Group.objects.get_or_create(name=name)[0] for name in names])
        self.is_staff = self.is_superuser or not {Role.OPS, Role.ADMIN}.isdisjoint(names)
        self.save(update_fields=["is_staff"])
        self.__dict__.pop("roles", None)

    def has_role(self, *roles: str) -> bool:
        return not self.roles.isdisjoint(roles)
