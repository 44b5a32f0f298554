from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LabelingConfig(AppConfig):
    name = "labeling"
    verbose_name = _("Labeling")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from auditlog.registry import auditlog  # it has models, which cannot be loaded before this moment

        auditlog.register(self.get_model("Project"), m2m_fields={"members"})
        auditlog.register(self.get_model("InstructionVersion"))
