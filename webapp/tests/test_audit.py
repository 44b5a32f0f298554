"""The audit log says who changed what."""

import json
from types import SimpleNamespace

from auditlog.models import LogEntry
from django.contrib.auth.models import Group
from django.test import Client

from labeling.models import Prompt
from labeling.tests.world import PASSWORD
from rlhf.tests.world import trained
from webapp.tests.teams import labels


def entries(about: str) -> list[dict[str, object]]:
    return [
        {"actor": entry.actor and entry.actor.username, **entry.changes}
        for entry in LogEntry.objects.filter(object_repr=about).order_by("pk")
    ]


def client_of(user: object) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_a_role_that_was_given_stands_in_the_log(site: SimpleNamespace) -> None:
    group, _made = Group.objects.get_or_create(name="ops")
    form = {"username": "lena", "is_active": "on", "groups": [group.pk], "language": "", "date_joined_0": "2026-01-01"}
    form |= {"date_joined_1": "00:00", "email": "", "first_name": "", "last_name": ""}
    answer = client_of(site.admin).post(f"/admin/labeling/user/{site.labeler.pk}/change/", form)
    assert answer.status_code == 302, answer.content
    site.labeler = type(site.labeler).objects.get(pk=site.labeler.pk)
    assert site.labeler.has_role("ops") and site.labeler.is_staff
    log = json.dumps(entries("lena"))
    assert '"actor": "ada"' in log and "ops" in log


def test_that_a_password_changed_is_logged_but_not_to_what(site: SimpleNamespace) -> None:
    new = {"new_password1": "a whole other password 7", "new_password2": "a whole other password 7"}
    client_of(site.labeler).post("/preferences/password/", {"old_password": PASSWORD, **new})
    site.labeler.refresh_from_db()
    (entry,) = [entry for entry in entries("lena") if "password" in entry and entry["actor"]]
    assert entry["actor"] == "lena"
    assert site.labeler.password[-20:] not in json.dumps(entry)


def test_a_forged_address_is_not_believed(site: SimpleNamespace) -> None:
    client = client_of(site.labeler)
    client.post("/preferences/", {"language": "ko", "theme": "dark"}, headers={"x-forwarded-for": "not an address"})
    entry = LogEntry.objects.filter(object_repr="lena", actor=site.labeler).get()
    assert entry.changes["language"] == ["", "ko"] and entry.remote_addr is None


def test_cancelling_over_the_api_is_logged_with_who_did_it(site: SimpleNamespace) -> None:
    labels(site.project, site.curator, site.labeler, "ours")
    run = trained(site.project, site.ops)["run"]
    assert client_of(site.ops).post(f"/api/runs/{run.pk}/cancel/").status_code == 200
    assert {"actor": "oleg", "cancel_requested": ["False", "True"]} in entries(str(run))


def test_who_approved_and_retired_a_prompt_stands_in_the_log(site: SimpleNamespace) -> None:
    prompt = Prompt.objects.add(site.project, [{"role": "user", "content": "What is a fjord?"}], language="en")
    curator = client_of(site.curator)
    curator.post(f"/api/prompts/{prompt.pk}/approve/")
    curator.post(f"/prompts/{prompt.pk}/retire/")
    curator.post(f"/prompts/{prompt.pk}/retire/")
    assert entries("What is a fjord?") == [
        {"actor": "cora", "state": ["draft", "approved"]},
        {"actor": "cora", "state": ["approved", "retired"]},
    ]


def test_what_is_done_outside_a_request_is_nobodys(site: SimpleNamespace) -> None:
    client_of(site.labeler).get("/preferences/")
    prompt = Prompt.objects.add(site.project, [{"role": "user", "content": "What is a skerry?"}], language="en")
    prompt.approve(site.curator)
    assert entries("What is a skerry?") == [{"actor": None, "state": ["draft", "approved"]}]
