from django.apps import AppConfig


def hidden(value: str) -> str:
    """auditlog's own mask leaves the second half to be read."""
    return "***"


class WebappConfig(AppConfig):
    name = "webapp"

    def ready(self) -> None:
        from auditlog.registry import auditlog  # it has models, which cannot be loaded before this moment

        from labeling.models import User

        # Who was given which role, who was let in or shut out; that a password changed, but not to what.
        auditlog.register(
            User,
            exclude_fields=["last_login"],
            mask_fields=["password"],
            mask_callable="webapp.apps.hidden",
            m2m_fields={"groups"},
        )
