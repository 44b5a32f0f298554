"""Accounts in the admin, and tables of libraries that it does not show."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from rest_framework.authtoken.admin import TokenAdmin  # imported so that its table is registered before ours
from rest_framework.authtoken.models import TokenProxy

from labeling.models import Role, User

# It would list digests as if they were tokens and make tokens that open nothing; the preferences page does it right.
assert isinstance(admin.site.get_model_admin(TokenProxy), TokenAdmin)
admin.site.unregister(TokenProxy)


class NewAccountForm(AdminUserCreationForm[User]):
    class Meta(AdminUserCreationForm.Meta):
        model = User


class AccountForm(UserChangeForm[User]):
    class Meta(UserChangeForm.Meta):
        model = User


@admin.register(User)
class AccountAdmin(UserAdmin[User]):
    """Roles are groups; who runs training gets into the console by the role alone."""

    form = AccountForm
    add_form = NewAccountForm
    list_display = ["username", "role_names", "is_active", "is_superuser", "last_login"]
    list_filter = ["groups", "is_active", "is_superuser"]
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        (_("Person"), {"fields": ["first_name", "last_name", "email", "language"]}),
        (_("Roles"), {"fields": ["is_active", "groups", "is_superuser"]}),
        (_("Dates"), {"fields": ["last_login", "date_joined"]}),
    ]
    filter_horizontal = ["groups"]

    @admin.display(description=_("roles"))
    def role_names(self, user: User) -> str:
        return ", ".join(str(Role(role).label) for role in Role.values if role in user.roles)

    def save_related(self, request: HttpRequest, form: Any, *args: Any, **kwargs: Any) -> None:
        super().save_related(request, form, *args, **kwargs)
        User.objects.filter(pk=form.instance.pk).update(
            is_staff=form.instance.is_superuser or form.instance.groups.filter(name=Role.OPS).exists()
        )
