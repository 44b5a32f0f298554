"""Rows for other programs, worked out by hand; their shapes stand in docs/files.md."""

import uuid
from datetime import datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling import exporting
from labeling.export import pseudonym
from labeling.models import Answer, Demonstration, Export, Project, Prompt, Review, User
from labeling.rankings import FLAGS
from labeling.tests.rows import ANSWERS, HAIKU, approved, demonstrated, ranked, ranking

ASKED = [{"role": "user", "content": HAIKU}]


def rows(project: Project, kind: str, **choices: Any) -> list[dict[str, Any]]:
    """All rows, each with exactly the columns that are announced."""
    export = Export(project=project, kind=kind, **choices)
    found = [row for label in exporting.labels(export) for row in label]
    assert all(set(row) == set(exporting.columns(export)) for row in found)
    return found


def spoken(row: dict[str, Any], side: str) -> str:
    [message] = row[side]
    assert message["role"] == "assistant"
    return str(message["content"])


def rated(*marks: int | None, **fields: Any) -> dict[str, Any]:
    """Tiers 2, 1, 2, 3 with these marks."""
    payload = ranking([2, 1, 2, 3], **fields)
    return payload | {"ratings": [mark and {"overall": mark, "flags": [], "note": ""} for mark in marks]}


@pytest.fixture
def unrated(project: Project) -> Project:
    """The project, asking for no ratings."""
    project.require_ratings = False
    project.save()
    return project


def test_ranking_is_told_as_it_was_given(project: Project, alice: User) -> None:
    payload = ranking([2, 1, 2, 3], note="Close.")
    payload["ratings"][3] = {"overall": 1, "flags": ["opinion", "hallucination"], "note": "No poem."}
    answer = ranked(project, alice, payload, cut=(1,))
    said = answer.current
    assert said and answer.slot
    [row] = rows(project, "rankings")
    assert datetime.fromisoformat(row["created_at"]) == said.created_at
    assert row == {
        "id": f"rev-{said.pk}",
        "prompt": ASKED,
        "completions": ANSWERS,
        "tiers": [2, 1, 2, 3],
        "ratings": [4, 4, 4, 1],
        "flags": ["", "", "", "hallucination opinion"],
        "notes": ["", "", "", "No poem."],
        "verdict": "ranked",
        "note": "Close.",
        "models": ["tiny-1"] * 4,
        "finish_reasons": ["stop", "length", "stop", "stop"],
        "shown_order": answer.slot.shown_order,
        "active_seconds": 12.5,
        "review": "none",
        "purpose": "label",
        "revision": 1,
        "labeler": pseudonym(alice.pk),
        "source": "",
        "repeat": 0,
        "strength": 0,
        "instruction_version": 0,
        "created_at": row["created_at"],
        "set_id": str(answer.completion_set_id),
        "arm": answer.completion_set.arm,
        "prompt_id": str(answer.completion_set.prompt_id),
        "split": answer.completion_set.prompt.split,
        "language": "en",
    }


def test_pairs_put_the_better_one_first_and_leave_ties_out(project: Project, alice: User) -> None:
    answer = ranked(project, alice, ranking([2, 1, 2, 3]))
    found = rows(project, "pairs")
    better = {(spoken(row, "chosen"), spoken(row, "rejected")) for row in found}
    first, best, third, last = ANSWERS
    assert better == {(best, first), (best, third), (best, last), (first, last), (third, last)}
    assert len(found) == 5
    assert all(row["prompt"] == ASKED and not row["tie"] and "margin" not in row for row in found)
    [row] = [row for row in found if row["id"] == f"rev-{answer.current.pk}-1-3"]  # type: ignore[union-attr]
    sides = {key: value for key, value in row.items() if key.startswith(("chosen_", "rejected_"))}
    assert sides == {
        "chosen_index": 1,
        "chosen_tier": 1,
        "chosen_rating": 4,
        "chosen_model": "tiny-1",
        "chosen_finish_reason": "stop",
        "rejected_index": 3,
        "rejected_tier": 3,
        "rejected_rating": 4,
        "rejected_model": "tiny-1",
        "rejected_finish_reason": "stop",
    }


def margins(found: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    return {(row["chosen_index"], row["rejected_index"]): row["margin"] for row in found}


def test_margin_by_tiers_is_how_many_tiers_lie_between(project: Project, alice: User) -> None:
    ranked(project, alice, ranking([2, 1, 2, 3]))
    found = margins(rows(project, "pairs", margin="tiers"))
    assert found == {(1, 0): 1.0, (1, 2): 1.0, (1, 3): 2.0, (0, 3): 1.0, (2, 3): 1.0}


def test_margin_by_ratings_is_never_below_zero_and_zero_where_one_is_missing(unrated: Project, alice: User) -> None:
    ranked(unrated, alice, rated(5, 7, None, 6))
    found = margins(rows(unrated, "pairs", margin="ratings"))
    # 0 stands above 3, which was rated higher: the ranking decides who is chosen, and asks for no margin.
    assert found == {(1, 0): 2.0, (1, 2): 0.0, (1, 3): 1.0, (0, 3): 0.0, (2, 3): 0.0}


@pytest.mark.parametrize("margin", ["none", "tiers", "ratings"])
def test_ties_that_are_kept_have_margin_zero(unrated: Project, alice: User, margin: str) -> None:
    ranked(unrated, alice, rated(7, 7, 1, 1))
    found = rows(unrated, "pairs", ties="keep", margin=margin)
    assert len(found) == 6
    [tie] = [row for row in found if row["tie"]]
    assert {tie["chosen_index"], tie["rejected_index"]} == {0, 2}
    assert tie["margin"] == 0.0
    assert (max(row["margin"] for row in found) > 0) == (margin != "none")


def test_which_of_a_tie_is_chosen_is_fair_and_always_the_same(project: Project, alice: User) -> None:
    for number in range(12):
        ranked(project, alice, ranking([1, 1, 1, 1]), f"{HAIKU} {number}")
    found = rows(project, "pairs", ties="keep")
    first = sum(row["chosen_index"] < row["rejected_index"] for row in found)
    assert len(found) == 72
    assert 24 <= first <= 48
    assert rows(project, "pairs", ties="keep") == found


def test_two_completions_that_say_the_same_are_no_pair(project: Project, alice: User) -> None:
    ranked(project, alice, ranking([1, 1, 2, 2]), texts=["same", "same", "b", "c"])
    found = rows(project, "pairs", ties="keep")
    assert len(found) == 5
    assert all(row["chosen"] != row["rejected"] for row in found)


def test_ratings_are_one_row_for_each_completion_that_was_rated(unrated: Project, alice: User) -> None:
    payload = rated(5, None, 7, None)
    payload["ratings"][1] = {"overall": None, "flags": ["sexual_content"], "note": "Mind this."}
    ranked(unrated, alice, payload, cut=(2,))
    found = rows(unrated, "ratings")
    assert [(row["index"], row["overall"], row["note"]) for row in found] == [
        (0, 5, ""),
        (1, 0, "Mind this."),
        (2, 7, ""),
    ]
    assert [spoken(row, "completion") for row in found] == ANSWERS[:3]
    assert [flag for flag in FLAGS if found[1][flag]] == ["sexual_content"]
    assert not any(found[0][flag] for flag in FLAGS)
    assert [row["finish_reason"] for row in found] == ["stop", "stop", "length"]


def test_demonstration_ends_its_dialogue(project: Project, alice: User) -> None:
    demonstration = demonstrated(project, alice, "Rain falls.")
    demonstration.amend(alice, {"text": "Rain fell."}, uuid.uuid4(), 1)
    [row] = rows(project, "demonstrations")
    assert row["messages"] == [*ASKED, {"role": "assistant", "content": "Rain fell."}]
    assert (row["labeler"], row["origin"], row["revision"]) == (pseudonym(alice.pk), "labeler", 2)
    assert row["id"] == f"demo-{demonstration.pk}-{demonstration.newest.pk}"


def test_imported_demonstration_names_its_source_and_nobody(project: Project, carol: User) -> None:
    prompt = Prompt.objects.add(project, ASKED, language="en")
    Demonstration.objects.import_all([(prompt, "Rain again.")], "seed tasks")
    assert rows(project, "demonstrations") == []
    prompt.approve(carol)
    [row] = rows(project, "demonstrations")
    assert (row["labeler"], row["origin"], row["source"]) == ("", "imported", "seed tasks")


def test_raw_rankings_have_every_verdict_and_the_newest_revision(project: Project, alice: User) -> None:
    ranked(project, alice, {"verdict": "none_acceptable", "tiers": None, "ratings": None})
    ranked(project, alice, {"verdict": "cannot_judge"}, "What is a fjord?")
    amended = ranked(project, alice, ranking([1, 2, 3, 4]), "What is a skerry?")
    amended.amend(alice, ranking([4, 3, 2, 1]), uuid.uuid4(), 1)
    found = rows(project, "rankings")
    assert [row["verdict"] for row in found] == ["none_acceptable", "cannot_judge", "ranked"]
    assert [row["tiers"] for row in found] == [[0] * 4, [0] * 4, [4, 3, 2, 1]]
    assert found[2]["revision"] == 2
    assert {row["set_id"] for row in rows(project, "pairs")} == {found[2]["set_id"]}


def test_what_was_returned_is_in_the_raw_rankings_alone(project: Project, alice: User, carol: User) -> None:
    answer = ranked(project, alice, ranking([1, 2, 3, 4]))
    assert answer.slot
    Review.objects.add(answer.slot, carol, "returned", "Look again.")
    assert [row["review"] for row in rows(project, "rankings")] == ["returned"]
    assert rows(project, "pairs") == rows(project, "ratings") == []


def test_what_was_taken_back_is_nowhere(project: Project, alice: User) -> None:
    answer = ranked(project, alice, ranking([1, 2, 3, 4]))
    assert answer.slot
    answer.slot.take_back(alice)
    assert Answer.objects.count() == 1
    assert not any(rows(project, kind) for kind in Export.Kind.values)


def test_part_and_language_choose_rows(project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(policy_languages=["en", "ko"])
    project.refresh_from_db()
    english = ranked(project, alice, ranking([1, 2, 3, 4]))
    korean = ranked(project, alice, ranking([1, 2, 3, 4]), "비에 대한 시를 써 줘", language="ko")
    Prompt.objects.filter(pk=english.completion_set.prompt_id).update(split="heldout")
    Prompt.objects.filter(pk=korean.completion_set.prompt_id).update(split="train")
    for choice, expected in (
        ({}, ["en", "ko"]),
        ({"language": "ko"}, ["ko"]),
        ({"split": "heldout"}, ["en"]),
        ({"split": "heldout", "language": "ko"}, []),
    ):
        assert [row["language"] for row in rows(project, "rankings", **choice)] == expected


def test_other_projects_do_not_leak_in(project: Project, alice: User) -> None:
    ranked(project, alice, ranking([1, 2, 3, 4]))
    other = Project.objects.create(name="Other", slug="other", languages=["en"])
    assert not any(rows(other, kind) for kind in Export.Kind.values)


def test_names_are_told_only_where_they_are_asked_for(project: Project, alice: User, carol: User) -> None:
    ranked(project, alice, ranking([1, 2, 3, 4]))
    demonstrated(project, alice, "Rain falls.", "What is rain?")
    for kind in Export.Kind.values:
        assert "alice" not in str(rows(project, kind))
        assert {row["labeler"] for row in rows(project, kind, identities="usernames")} == {"alice"}


@pytest.mark.parametrize("kind", Export.Kind.values)
def test_queries_do_not_grow_with_rows(project: Project, alice: User, kind: str) -> None:
    def asked() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert rows(project, kind)
        return len(queries)

    ranked(project, alice, ranking([1, 2, 3, 4]))
    demonstrated(project, alice, "Rain falls.", "What is rain?")
    before = asked()
    for number in range(4):
        ranked(project, alice, ranking([1, 2, 3, 4]), f"{HAIKU} {number}")
        demonstrated(project, alice, "Rain falls.", f"What is rain? {number}")
    assert asked() == before


def test_prompts_alone_are_no_labels(project: Project, alice: User) -> None:
    approved(project)
    assert [exporting.count(Export(project=project, kind=kind)) for kind in Export.Kind.values] == [0] * 4
