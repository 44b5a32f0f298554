"""Rows of the registry and of training for tests; what people say comes from `labeling/tests/world.py`."""

import hashlib
import json
from pathlib import Path
from typing import Any

from django.conf import settings

from rlhf.models import DatasetSnapshot, ModelVersion, TrainingRun


def model_version(name: str, kind: str = "base", languages: tuple[str, ...] = ("en",), **fields: Any) -> ModelVersion:
    """A version with real files, which `modelzoo.checkpoint.verify` accepts; there are no weights in them."""
    directory = Path(settings.DATA_DIR) / "models" / name
    directory.mkdir(parents=True, exist_ok=True)
    config = b'{"architectures": ["LlamaForCausalLM"]}'
    (directory / "config.json").write_bytes(config)
    manifest = {"format": 1, "kind": kind, "files": {"config.json": hashlib.sha256(config).hexdigest()}}
    encoded = json.dumps(manifest).encode()
    (directory / "manifest.json").write_bytes(encoded)
    return ModelVersion.objects.create(
        name=name,
        kind=kind,
        directory=f"models/{name}",
        manifest_hash=hashlib.sha256(encoded).hexdigest(),
        languages=list(languages),
        **fields,
    )


def trained(project: Any, ops: Any) -> dict[str, Any]:
    """A snapshot of `project` and a run on it, waiting for a worker."""
    snapshot = DatasetSnapshot.objects.freeze(project, ops)
    policy = ModelVersion.objects.get(name=project.policy_name)
    run = TrainingRun.objects.start(stage="sft", project=project, snapshot=snapshot, policy=policy, by=ops)
    return {"snapshot": snapshot, "run": run, "version": policy}
