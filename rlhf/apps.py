from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RlhfConfig(AppConfig):
    name = "rlhf"
    verbose_name = _("Training")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from auditlog.registry import auditlog  # it has models, which cannot be loaded before this moment

        for name in ("DatasetSnapshot", "ModelVersion", "Promotion"):
            auditlog.register(self.get_model(name))
        auditlog.register(
            self.get_model("Schedule"),
            exclude_fields=["rankings_seen", "counts_from", "last_run_at", "last_error", "created_at"],
        )
        # Workers change runs by guarded UPDATE; what people do to them is recorded in the verbs (rlhf/audit.py).
        auditlog.register(
            self.get_model("TrainingRun"),
            include_fields=["project", "stage", "snapshot", "policy", "reward_model", "params", "by"],
        )
