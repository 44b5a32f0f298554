"""Who loads what: the web process must stay small."""

import os
import subprocess
import sys

from django.conf import settings

HEAVY = ("torch", "sentencepiece", "tokenizers", "gguf", "safetensors", "pyarrow", "worker.tasks", "worker.sampling")


def loaded_by(code: str) -> set[str]:
    """Which of HEAVY a fresh process has loaded after it ran `code`."""
    code += f"\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=settings.BASE_DIR, env=os.environ, capture_output=True, text=True, check=True
    )
    return set(finished.stdout.split())


def test_the_web_process_loads_no_torch_even_when_it_sends_work() -> None:
    code = (
        "from webapp import asgi; from django.urls import get_resolver; get_resolver().url_patterns\n"
        "from worker.jobs import send; send('worker.tasks.sample', 'sample', 0)"
    )
    assert loaded_by("import os; os.environ['REDIS_URL'] = 'redis://127.0.0.1:1'\n" + code) == set()


def test_a_worker_finds_its_tasks_and_loads_torch_only_to_sample() -> None:
    code = (
        "import django; from worker.celery import app; django.setup(); app.loader.import_default_modules()\n"
        "assert {'sample', 'train', 'export', 'mend', 'run_schedules', 'expire_exports'}"
        " <= {name.rsplit('.')[-1] for name in app.tasks}\n"
        "from worker import training"
    )
    assert loaded_by(code) == {"worker.tasks"}
