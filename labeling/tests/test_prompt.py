"""The life of a prompt: draft, approved, retired; slots and sets follow, for one as for ten thousand."""

import pytest
from django.core.exceptions import ValidationError
from pytest_django import DjangoAssertNumQueries

from labeling.models import CompletionSet, Project, Prompt, SamplingJob, Slot, Translation, User
from labeling.models.prompt import draw_split
from labeling.tests.rows import approved, sampled


def many(project: Project, count: int, language: str = "en") -> None:
    prompts = []
    for number in range(count):
        prompt = Prompt(project=project, language=language)
        prompt.set_messages([{"role": "user", "content": f"{language} question {number}"}])
        prompt.split = draw_split(prompt.family)
        prompts.append(prompt)
    Prompt.objects.bulk_create(prompts)


def test_approval_opens_demonstrations_and_asks_for_completions(draft: Prompt, carol: User) -> None:
    assert draft.approve(carol)
    assert (draft.state, draft.approved_by) == (Prompt.State.APPROVED, carol)
    assert Slot.objects.get().task_type == Slot.TaskType.DEMONSTRATION
    made = CompletionSet.objects.get()
    assert (made.k, made.policy_name, made.state, made.seed > 0) == (4, "tiny-1", "sampling", True)
    assert made.job.state == SamplingJob.State.QUEUED


def test_approving_twice_approves_once(draft: Prompt, carol: User) -> None:
    assert draft.approve(carol)
    assert not draft.approve(carol)
    assert Slot.objects.count() == CompletionSet.objects.count() == 1


def test_what_the_policy_does_not_speak_is_demonstrated_not_sampled(project: Project, carol: User) -> None:
    project.demonstration_overlap = 0
    project.save()
    approved(project, "안녕하세요", "ko")
    approved(project, "Hello", "en")
    assert [slot.prompt.language for slot in Slot.objects.all()] == ["ko"]
    assert [made.prompt.language for made in CompletionSet.objects.all()] == ["en"]


def test_thousands_are_approved_promoted_and_retired_in_few_queries(
    project: Project, carol: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    many(project, 1200, "en")
    many(project, 800, "ko")
    with django_assert_max_num_queries(160):
        assert project.prompts.all().approve(carol) == 2000
    assert (CompletionSet.objects.count(), SamplingJob.objects.count(), Slot.objects.count()) == (1200, 1200, 2000)
    with django_assert_max_num_queries(160):
        project.set_policy("tiny-2", ["en", "ko"])
    assert CompletionSet.objects.live().count() == 2000
    assert SamplingJob.objects.unfinished().count() == 2000
    with django_assert_max_num_queries(150):
        assert project.prompts.all().retire() == 2000
    assert (CompletionSet.objects.live().count(), Slot.objects.count()) == (0, 0)


def test_a_prompt_may_ask_for_its_own_number_of_completions(draft: Prompt, carol: User) -> None:
    draft.choose_k("7")
    draft.approve(carol)
    assert CompletionSet.objects.get().k == 7


@pytest.mark.parametrize("k", ["3", "10", "-4", "four", "4.5"])
def test_the_number_of_completions_is_from_4_to_9(draft: Prompt, k: str) -> None:
    with pytest.raises(ValidationError, match="from 4 to 9"):
        draft.choose_k(k)


def test_retiring_keeps_what_was_said(project: Project, carol: User, alice: User) -> None:
    prompt = approved(project)
    made = sampled(prompt)
    slot = Slot.objects.claim_next(project, alice)
    assert slot
    prompt.retire()
    made.refresh_from_db()
    assert made.state == "ready"
    assert list(Slot.objects.values_list("pk", flat=True)) == [slot.pk]


def test_a_restored_prompt_is_a_draft_that_was_not_approved(project: Project, carol: User) -> None:
    prompt = approved(project)
    prompt.retire()
    assert Prompt.objects.filter(pk=prompt.pk).restore() == 1
    prompt.refresh_from_db()
    assert (prompt.state, prompt.approved_by) == (Prompt.State.DRAFT, None)
    assert prompt.approve(carol)
    assert CompletionSet.objects.live().count() == 1


def test_a_prompt_somebody_was_given_can_no_longer_be_rewritten(project: Project, carol: User) -> None:
    prompt = approved(project)
    prompt.retire()
    Prompt.objects.filter(pk=prompt.pk).restore()
    prompt.refresh_from_db()
    with pytest.raises(ValidationError, match="can no longer be changed"):
        prompt.rewrite([{"role": "user", "content": "Something else"}])


def test_rewriting_checks_the_text(draft: Prompt) -> None:
    with pytest.raises(ValidationError, match="the limit is 16000"):
        draft.rewrite([{"role": "user", "content": "x" * 16_001}])
    draft.rewrite([{"role": "user", "content": "  Write a sonnet. "}])
    draft.refresh_from_db()
    assert (draft.text, draft.searchable) == ("Write a sonnet.", "Write a sonnet.")


def test_the_same_text_twice_is_refused(project: Project, draft: Prompt) -> None:
    with pytest.raises(ValidationError, match="already in the project"):
        Prompt.objects.add(project, [{"role": "user", "content": f" {draft.text.upper()}"}], language="en")


def test_sampling_again_takes_the_settings_of_now(project: Project, carol: User) -> None:
    prompt = approved(project)
    old = CompletionSet.objects.get()
    SamplingJob.objects.claim(old.job.pk).fail("The checkpoint is damaged.")
    project.temperature = 0.3
    project.save()
    prompt.choose_k("5")
    new = prompt.sample_again()
    old.refresh_from_db()
    assert new and (new.k, new.temperature, old.state) == (5, 0.3, "expired")


def test_a_set_in_work_is_not_sampled_again(project: Project, carol: User, alice: User) -> None:
    prompt = approved(project)
    sampled(prompt)
    assert Slot.objects.claim_next(project, alice, "ranking")
    with pytest.raises(ValidationError, match="A labeler is at work"):
        prompt.sample_again()


def test_a_draft_is_not_sampled(draft: Prompt) -> None:
    with pytest.raises(ValidationError, match="Only approved prompts"):
        draft.sample_again()


def test_filters_find_what_they_say(project: Project, carol: User, draft: Prompt) -> None:
    korean = Prompt.objects.add(
        project, [{"role": "user", "content": "김장은 언제 하나요? 100%"}], language="ko", tags=["질문"], source="책"
    )
    approved(project, "An approved one")
    everything = project.prompts.all()

    def found(**filters: str) -> set[Prompt]:
        return set(everything.matching(filters))

    assert found(language="ko") == found(tag="질문") == found(source="책") == found(q="김장") == {korean}
    assert found(q="100%") == {korean}
    assert found(q="haiku ABOUT") == found(tag="writing") == {draft}
    assert found(q="user") == found(q="content") == found(q="_") == set()
    assert {prompt.text for prompt in found(completions="in_work")} == {"An approved one"}
    assert found(completions="sampled") == found(completions="failed") == set()
    assert {prompt.text for prompt in found(translation="missing-ko")} == {"An approved one"}
    assert found(state="draft", language="en") == {draft}


def test_begun_and_finished_translations_are_no_longer_to_translate(project: Project, carol: User) -> None:
    first, second, third = (approved(project, text) for text in ("One", "Two", "Three"))
    Translation.objects.begin(first, "ko", carol).save_draft(["하"], carol, 0)
    Translation.objects.begin(second, "ko", carol).finish(["둘"], carol, 0)
    everything = project.prompts.all()
    assert list(everything.to_translate("ko")) == [third]
    assert list(everything.with_translation("draft")) == [first]


def test_tags_are_tidied(project: Project, draft: Prompt) -> None:
    draft.rewrite(draft.messages, tags=["Two  Words", "two words", " "])
    assert draft.tags == ["two words"]
    with pytest.raises(ValidationError, match="no commas"):
        draft.rewrite(draft.messages, tags=['a"b'])


def test_a_prompt_and_its_family_fall_on_the_same_side(project: Project, draft: Prompt) -> None:
    other = Prompt.objects.add(project, draft.messages, language="ko", family=draft.family)
    assert other.split == draft.split


def test_ranked_sets_survive_a_promotion(project: Project, carol: User, alice: User) -> None:
    prompt = approved(project)
    made = sampled(prompt)
    slot = Slot.objects.claim_next(project, alice, "ranking")
    assert slot
    project.set_policy("tiny-2", ["en"])
    made.refresh_from_db()
    assert made.state == "ready"
    assert CompletionSet.objects.live().filter(policy_name="tiny-2").count() == 1
