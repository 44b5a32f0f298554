"""The admin's pages of projects, prompts and labels: ops look, admins change, nobody writes labels by hand."""

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import CompletionSet, Project, Prompt, Role, Slot, User
from labeling.tests.rows import approved, sampled

PAGES = ["project", "instructionversion", "prompt", "completionset", "answer", "demonstration"]


def client_of(*roles: Role, is_superuser: bool = False) -> Client:
    user = User.objects.create_user("ada", is_superuser=is_superuser, is_staff=True)
    user.set_roles(roles)
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("name", PAGES)
def test_ops_see_every_list_and_add_nothing(project: Project, name: str) -> None:
    sampled(approved(project))
    ops = client_of(Role.OPS)
    assert ops.get(reverse(f"admin:labeling_{name}_changelist")).status_code == 200
    assert ops.get(reverse(f"admin:labeling_{name}_add")).status_code == 403


def test_an_admin_changes_a_project_and_its_slots_follow(project: Project) -> None:
    sampled(approved(project))
    address = reverse("admin:labeling_project_change", args=[project.pk])
    data = {
        "name": project.name,
        "languages": ["en", "ko"],
        "k": "5",
        "comparison": "tiers",
        "ranking_overlap": "2",
        "demonstration_overlap": "1",
        "gold_percent": "5",
        "repeat_percent": "2",
    }
    data |= {
        "temperature": "1",
        "top_p": "0.9",
        "max_new_tokens": "64",
        "control_share": "15",
        "members": [],
        "use_flags": "on",
    }
    response = client_of(Role.ADMIN, is_superuser=True).post(address, data)
    assert response.status_code == 302
    project.refresh_from_db()
    assert (project.k, project.ranking_overlap, project.policy_name) == (5, 2, "tiny-1")
    assert Slot.objects.filter(task_type="ranking").count() == 2


def test_ops_change_no_project(project: Project) -> None:
    address = reverse("admin:labeling_project_change", args=[project.pk])
    assert client_of(Role.OPS).post(address, {"name": "Mine"}).status_code == 403


def test_an_admin_approves_in_bulk(draft: Prompt) -> None:
    data = {"action": "approve", "_selected_action": [draft.pk]}
    client_of(Role.ADMIN, is_superuser=True).post(reverse("admin:labeling_prompt_changelist"), data)
    draft.refresh_from_db()
    assert draft.state == Prompt.State.APPROVED and CompletionSet.objects.count() == 1


def test_a_new_project_gets_an_address(db: None) -> None:
    data = {"name": "Fresh start", "languages": ["ko"], "k": "4", "ranking_overlap": "1", "demonstration_overlap": "1"}
    data |= {"gold_percent": "5", "repeat_percent": "2"}
    data["comparison"] = "pairs"
    data |= {"temperature": "1", "top_p": "0.9", "max_new_tokens": "64", "control_share": "15"}
    client_of(Role.ADMIN, is_superuser=True).post(reverse("admin:labeling_project_add"), data)
    assert Project.objects.get().slug == "fresh-start"
