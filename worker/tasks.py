"""The tasks: one domain call each. A message carries a row's key and nothing else.

What a task needs is imported by the worker that does it: the trainer's and the beat's have no need of torch.
"""

from labeling.models import ComparisonImport, Delivery, Export, Readiness, SamplingJob, ScoringJob, TokenCount
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


@app.task(name=ScoringJob.TASK)  # type: ignore[untyped-decorator]
def score(job_id: int) -> None:
    from worker import scoring

    scoring.score(job_id)


@app.task(name=Readiness.TASK)  # type: ignore[untyped-decorator]
def look_over(job_id: int) -> None:
    from worker import readiness

    readiness.look_over(job_id)


@app.task(name=TrainingRun.TASK)  # type: ignore[untyped-decorator]
def train(run_id: int) -> None:
    from worker import training

    training.train(run_id)


@app.task(name=Export.TASK)  # type: ignore[untyped-decorator]
def export(export_id: int) -> None:
    from worker import exporting

    exporting.export(export_id)


@app.task(name=ComparisonImport.TASK)  # type: ignore[untyped-decorator]
def import_comparisons(import_id: int) -> None:
    from worker import comparing

    comparing.import_comparisons(import_id)


@app.task(name=Delivery.TASK)  # type: ignore[untyped-decorator]
def deliver(delivery_id: int) -> None:
    from worker import delivering

    delivering.deliver(delivery_id)


@app.task(name="worker.tasks.expire_exports")  # type: ignore[untyped-decorator]
def expire_exports() -> None:
    Export.objects.expire()
    Delivery.objects.old().delete()


@app.task(name="worker.tasks.mend")  # type: ignore[untyped-decorator]
def mend() -> None:
    """Take back what dead workers held, and ring again for everything that waits."""
    kinds = (SamplingJob, TokenCount, ScoringJob, TrainingRun, Export, ComparisonImport, Delivery, Readiness)
    for jobs in (kind.objects for kind in kinds):
        jobs.reap()
        jobs.ring()
    TokenCount.objects.old().delete()


@app.task(name="worker.tasks.run_schedules")  # type: ignore[untyped-decorator]
def run_schedules() -> None:
    Schedule.objects.run_due()
