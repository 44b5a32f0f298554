"""The tasks: one domain call each. A message carries a row's key and nothing else.

Sampling and training are imported by the worker that does them: the trainer's and the beat's have no need of torch.
"""

from labeling.models import SamplingJob, TokenCount
from rlhf.models import Schedule, TrainingRun
from worker.celery import app


@app.task(name=SamplingJob.TASK)  # type: ignore[untyped-decorator]
def sample(job_id: int) -> None:
    from worker import sampling

    sampling.sample(job_id)


@app.task(name=TokenCount.TASK)  # type: ignore[untyped-decorator]
def count_tokens(job_id: int) -> None:
    from worker import counting

    counting.count_tokens(job_id)


@app.task(name=TrainingRun.TASK)  # type: ignore[untyped-decorator]
def train(run_id: int) -> None:
    from worker import training

    training.train(run_id)


@app.task(name="worker.tasks.mend")  # type: ignore[untyped-decorator]
def mend() -> None:
    """Take back what dead workers held, and ring again for everything that waits."""
    for jobs in (SamplingJob.objects, TokenCount.objects, TrainingRun.objects):
        jobs.reap()
        jobs.ring()
    TokenCount.objects.old().delete()


@app.task(name="worker.tasks.run_schedules")  # type: ignore[untyped-decorator]
def run_schedules() -> None:
    Schedule.objects.run_due()
