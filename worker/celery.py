"""The Celery app: a doorbell, nothing more. What is to be done stands in rows (see `worker/jobs.py`)."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
# Threads of torch that wait for one another sleep instead of spinning: where sampler, trainer and web share few cores,
# spinning made a step of sampling 15 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = Celery("nanochatgpt")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["worker"])
