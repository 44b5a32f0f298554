"""One's own settings: language, appearance, password, API token."""

import re
from types import SimpleNamespace

import pytest
from auditlog.models import LogEntry
from django.test import Client
from rest_framework.authtoken.models import Token

from labeling.tests.world import PASSWORD
from rlhf.tests.world import model_version


@pytest.fixture
def lena(site: SimpleNamespace) -> Client:
    client = Client()
    client.force_login(site.labeler)
    return client


def secret_of(page: str) -> str:
    found = re.search(r"<code>([0-9a-f]{40})</code>", page)
    assert found, page
    return found[1]


def test_the_chosen_language_stays_with_the_account(site: SimpleNamespace, lena: Client) -> None:
    lena.post("/preferences/", {"language": "ko", "theme": "dark"})
    elsewhere = Client(headers={"accept-language": "en"})
    elsewhere.force_login(site.labeler)
    page = elsewhere.get("/preferences/").content.decode()
    assert '<html lang="ko" data-theme="dark">' in page


def test_a_language_that_is_not_offered_is_refused(site: SimpleNamespace, lena: Client) -> None:
    page = lena.post("/preferences/", {"language": "xx", "theme": "dark"})
    assert page.status_code == 200 and b"errorlist" in page.content
    site.labeler.refresh_from_db()
    assert site.labeler.theme == "auto"


def test_the_password_is_changed_after_the_old_one_was_given(site: SimpleNamespace, lena: Client) -> None:
    new = {"new_password1": "a whole other password 7", "new_password2": "a whole other password 7"}
    refused = lena.post("/preferences/password/", {"old_password": "guess", **new})
    assert refused.status_code == 200 and b"errorlist" in refused.content
    assert lena.post("/preferences/password/", {"old_password": PASSWORD, **new}).status_code == 302
    assert lena.get("/preferences/").status_code == 200
    login = {"username": "lena", "password": "a whole other password 7"}
    assert Client().post("/login/", login).status_code == 302


def test_a_short_password_is_refused(site: SimpleNamespace, lena: Client) -> None:
    new = {"new_password1": "short", "new_password2": "short"}
    assert b"errorlist" in lena.post("/preferences/password/", {"old_password": PASSWORD, **new}).content


def test_a_token_is_shown_once_and_opens_the_api(site: SimpleNamespace, lena: Client) -> None:
    secret = secret_of(lena.post("/preferences/token/").content.decode())
    program = Client(headers={"authorization": f"Token {secret}"})
    assert program.get("/api/projects/").status_code == 200
    assert secret not in lena.get("/preferences/").content.decode()


def test_the_table_of_tokens_opens_nothing(site: SimpleNamespace, lena: Client) -> None:
    lena.post("/preferences/token/")
    stored = Token.objects.get(user=site.labeler).key
    assert Client(headers={"authorization": f"Token {stored}"}).get("/api/projects/").status_code == 401


def test_a_replaced_or_revoked_token_opens_nothing(site: SimpleNamespace, lena: Client) -> None:
    first = secret_of(lena.post("/preferences/token/").content.decode())
    second = secret_of(lena.post("/preferences/token/").content.decode())
    assert Client(headers={"authorization": f"Token {first}"}).get("/api/projects/").status_code == 401
    lena.post("/preferences/token/revoke/")
    assert Client(headers={"authorization": f"Token {second}"}).get("/api/projects/").status_code == 401


def test_the_token_of_someone_who_left_opens_nothing(site: SimpleNamespace, lena: Client) -> None:
    secret = secret_of(lena.post("/preferences/token/").content.decode())
    site.labeler.is_active = False
    site.labeler.save()
    assert Client(headers={"authorization": f"Token {secret}"}).get("/api/projects/").status_code == 401


@pytest.mark.parametrize("secret", ["", "x", "a b", "\u00e9", "0" * 10_000])
def test_a_malformed_token_is_refused(site: SimpleNamespace, secret: str) -> None:
    assert Client(headers={"authorization": f"Token {secret}"}).get("/api/projects/").status_code == 401


def test_what_a_program_does_is_logged_under_its_owner(site: SimpleNamespace) -> None:
    client = Client()
    client.force_login(site.ops)
    secret = secret_of(client.post("/preferences/token/").content.decode())
    program = Client(headers={"authorization": f"Token {secret}"})
    assert program.post("/api/models/tiny-base/archive/").status_code == 400
    model_version("tiny-spare")
    assert program.post("/api/models/tiny-spare/archive/").status_code == 200
    entry = LogEntry.objects.filter(object_repr="tiny-spare", action=LogEntry.Action.UPDATE).first()
    assert entry and entry.actor == site.ops
