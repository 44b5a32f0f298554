"""What machines learned from people: one entity a file."""

from rlhf.models.gpu_slot import GpuSlot
from rlhf.models.model_version import ModelVersion
from rlhf.models.promotion import Promotion
from rlhf.models.schedule import Schedule
from rlhf.models.snapshot import DatasetSnapshot
from rlhf.models.training_run import Metric, TrainingRun

__all__ = ["DatasetSnapshot", "GpuSlot", "Metric", "ModelVersion", "Promotion", "Schedule", "TrainingRun"]
