"""`manage.py import_model`: a model from elsewhere becomes a version, or one sentence says why not."""

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from modelzoo.checkpoint import manifest_hash
from modelzoo.huggingface import export_huggingface
from rlhf.models import ModelVersion

pytestmark = pytest.mark.django_db


def import_model(source: Path, name: str = "mine", **options: object) -> ModelVersion:
    call_command("import_model", str(source), name=name, stdout=StringIO(), **options)
    return ModelVersion.objects.get(name=name)


def test_a_checkpoint_is_copied_and_stays_the_same(checkpoint: Path, data_dir: Path) -> None:
    version = import_model(checkpoint)
    assert (version.kind, version.languages, version.directory) == ("policy", ["en"], "models/mine")
    assert version.manifest_hash == manifest_hash(checkpoint)
    assert version.complaints() == []


def test_a_checkpoint_in_the_data_directory_is_registered_where_it_lies(checkpoint: Path, data_dir: Path) -> None:
    shutil.copytree(checkpoint, data_dir / "trained" / "korean")
    version = import_model(data_dir / "trained" / "korean", kind="sft", languages=["ko"])
    assert (version.kind, version.languages, version.directory) == ("sft", ["ko"], "trained/korean")
    assert not (data_dir / "models").exists()


def test_a_hugging_face_directory_becomes_a_checkpoint(checkpoint: Path, data_dir: Path, tmp_path: Path) -> None:
    export_huggingface(checkpoint, tmp_path / "plain")
    version = import_model(tmp_path / "plain", languages=["en", "ko"])
    assert (version.kind, version.languages) == ("policy", ["en", "ko"])
    assert version.complaints() == []


def refusal(source: Path, name: str = "mine", **options: object) -> str:
    before = ModelVersion.objects.count()
    with pytest.raises(CommandError) as refused:
        import_model(source, name, **options)
    assert ModelVersion.objects.count() == before
    return str(refused.value)


def test_a_name_is_used_once_and_is_plain(checkpoint: Path, version: ModelVersion) -> None:
    assert "Names are never used twice" in refusal(checkpoint, version.name)
    assert "small letters" in refusal(checkpoint, "../Escape")


def test_a_damaged_checkpoint_is_refused(checkpoint: Path, data_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "config.json").write_text("{}")
    assert "config.json is corrupt" in refusal(broken)
    assert not (data_dir / "models" / "mine").exists()


def test_what_is_no_model_is_refused(data_dir: Path, tmp_path: Path) -> None:
    assert "missing" in refusal(tmp_path / "nowhere", languages=["en"])
    (tmp_path / "letter.txt").write_text("dear")
    assert refusal(tmp_path / "letter.txt", languages=["en"])


def test_a_policy_is_not_registered_as_a_reward_model(checkpoint: Path, data_dir: Path) -> None:
    assert "of kind “policy”" in refusal(checkpoint, kind="reward")
    assert not (data_dir / "models" / "mine").exists()


def test_a_policy_must_state_its_languages(checkpoint: Path, data_dir: Path) -> None:
    silent = data_dir / "silent"
    shutil.copytree(checkpoint, silent)
    manifest = json.loads((silent / "manifest.json").read_text())
    (silent / "manifest.json").write_text(json.dumps(manifest | {"languages": []}))
    assert "--languages" in refusal(silent)


def test_files_that_are_there_but_unregistered_are_not_written_over(checkpoint: Path, data_dir: Path) -> None:
    shutil.copytree(checkpoint, data_dir / "models" / "mine")
    assert "is there already" in refusal(checkpoint)
    assert import_model(data_dir / "models" / "mine").directory == "models/mine"
