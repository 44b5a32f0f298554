"""Which policy a project samples from, and the way back."""

import pytest
from django.core.exceptions import ValidationError

from labeling.models import CompletionSet, Project, SamplingJob, User
from labeling.tests.world import approved_prompt, sampled
from rlhf.models import ModelVersion, Promotion
from rlhf.tests.world import model_version


@pytest.fixture
def history(project: Project, oscar: User) -> dict[str, ModelVersion]:
    """Promoted one after the other: tiny-base, b, c."""
    versions = {"a": ModelVersion.objects.get(name="tiny-base")}
    for name in ("b", "c"):
        versions[name] = model_version(f"tiny-{name}")
        Promotion.objects.promote(project, versions[name], oscar)
    return versions


def test_promotion_withdraws_what_nobody_began_and_samples_anew(project: Project, carol: User, oscar: User) -> None:
    prompt = approved_prompt(project, carol)
    old = sampled(prompt)
    Promotion.objects.promote(project, model_version("tiny-2"), oscar)
    old.refresh_from_db()
    assert old.state == CompletionSet.State.EXPIRED
    new = CompletionSet.objects.live().get(prompt=prompt)
    assert new.policy_name == "tiny-2"
    assert SamplingJob.objects.runnable().filter(completion_set=new).exists()


def test_ranked_sets_stay(project: Project, oscar: User, rank: "type[list[object]]") -> None:
    [answer] = rank()
    Promotion.objects.promote(project, model_version("tiny-2"), oscar)
    answer.completion_set.refresh_from_db()
    assert answer.completion_set.state == CompletionSet.State.CLOSED


def test_promoting_the_current_policy_again_adds_nothing(project: Project, policy: ModelVersion, oscar: User) -> None:
    before = Promotion.objects.get()
    assert Promotion.objects.promote(project, policy, oscar) == before
    assert Promotion.objects.count() == 1


def test_reward_model_is_no_policy(project: Project, reward_model: ModelVersion, oscar: User) -> None:
    with pytest.raises(ValidationError, match="Choose a policy"):
        Promotion.objects.promote(project, reward_model, oscar)


def test_archived_version_is_never_promoted(project: Project, oscar: User) -> None:
    version = model_version("tiny-2")
    version.archive()
    with pytest.raises(ValidationError, match="archived"):
        Promotion.objects.promote(project, version, oscar)
    project.refresh_from_db()
    assert project.policy_name == "tiny-base"


def test_version_without_files_is_never_promoted(project: Project, oscar: User) -> None:
    version = model_version("tiny-2")
    (version.path / "manifest.json").unlink()
    with pytest.raises(ValidationError, match="missing from the data directory"):
        Promotion.objects.promote(project, version, oscar)


def test_rolling_back_is_a_new_row(project: Project, oscar: User, history: dict[str, ModelVersion]) -> None:
    promotion = Promotion.objects.roll_back(project, oscar)
    assert promotion.version == history["b"]
    assert promotion.is_rollback
    assert Promotion.objects.filter(project=project).count() == 4
    project.refresh_from_db()
    assert project.policy_name == "tiny-b"


def test_rolling_back_twice_goes_back_two_steps(
    project: Project, oscar: User, history: dict[str, ModelVersion]
) -> None:
    Promotion.objects.roll_back(project, oscar)
    assert Promotion.objects.roll_back(project, oscar).version == history["a"]
    with pytest.raises(ValidationError, match="no earlier policy"):
        Promotion.objects.roll_back(project, oscar)


def test_after_a_rollback_and_a_promotion_the_way_back_is_the_one_rolled_back_to(
    project: Project, oscar: User, history: dict[str, ModelVersion]
) -> None:
    Promotion.objects.roll_back(project, oscar)
    Promotion.objects.promote(project, model_version("tiny-d"), oscar)
    assert Promotion.objects.roll_back(project, oscar).version == history["b"]


def test_rollback_passes_over_archived_versions(
    project: Project, oscar: User, history: dict[str, ModelVersion]
) -> None:
    history["b"].archive()
    assert Promotion.objects.roll_back(project, oscar).version == history["a"]


def test_button_pressed_twice_goes_back_once(project: Project, oscar: User, history: dict[str, ModelVersion]) -> None:
    shown = Promotion.objects.first()
    assert shown is not None
    Promotion.objects.roll_back(project, oscar, from_promotion=shown.pk)
    with pytest.raises(ValidationError, match="changed meanwhile"):
        Promotion.objects.roll_back(project, oscar, from_promotion=shown.pk)
    project.refresh_from_db()
    assert project.policy_name == "tiny-b"


def test_nothing_to_roll_back_to_at_first(project: Project, oscar: User) -> None:
    with pytest.raises(ValidationError, match="no earlier policy"):
        Promotion.objects.roll_back(project, oscar)
