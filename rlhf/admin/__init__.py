"""The ops console: pages of the Django admin, one file for each entity. Every button calls one verb of the models."""

from rlhf.admin.model_version import ModelVersionAdmin
from rlhf.admin.promotion import PromotionAdmin
from rlhf.admin.schedule import ScheduleAdmin
from rlhf.admin.snapshot import SnapshotAdmin
from rlhf.admin.training_run import TrainingRunAdmin

__all__ = ["ModelVersionAdmin", "PromotionAdmin", "ScheduleAdmin", "SnapshotAdmin", "TrainingRunAdmin"]
