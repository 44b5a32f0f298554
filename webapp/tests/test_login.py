"""The way in, and what stands before it."""

from types import SimpleNamespace

import pytest
from django.test import Client

from labeling.tests.world import PASSWORD


def attempt(client: Client, password: str, name: str = "lena") -> int:
    return client.post("/login/", {"username": name, "password": password}).status_code


def test_the_right_password_lets_in(site: SimpleNamespace) -> None:
    client = Client()
    assert attempt(client, PASSWORD) == 302
    assert client.get("/preferences/").status_code == 200


def test_after_ten_wrong_passwords_the_right_one_no_longer_works(site: SimpleNamespace) -> None:
    client = Client()
    assert [attempt(client, "wrong") for _ in range(9)] == [200] * 9
    assert attempt(client, "wrong") == 429
    page = client.post("/login/", {"username": "lena", "password": PASSWORD})
    assert page.status_code == 429
    assert "Too many attempts" in page.content.decode()
    assert attempt(client, PASSWORD, "luis") == 302


@pytest.mark.parametrize("name", ["", "\x00", "x" * 10_000, "' OR 1=1 --", "ㅎㅎ"])
def test_a_strange_name_is_only_a_wrong_name(site: SimpleNamespace, name: str) -> None:
    assert attempt(Client(), PASSWORD, name) == 200


def test_login_goes_on_to_the_wanted_page_but_not_to_another_site(site: SimpleNamespace) -> None:
    wanted = {"username": "lena", "password": PASSWORD, "next": "/preferences/"}
    assert Client().post("/login/", wanted).headers["location"] == "/preferences/"
    elsewhere = {**wanted, "next": "https://example.com/"}
    assert Client().post("/login/", elsewhere).headers["location"] == "/"


def test_logging_in_changes_the_session_key(site: SimpleNamespace) -> None:
    client = Client()
    client.get("/login/")
    before = client.session.session_key
    attempt(client, PASSWORD)
    assert client.session.session_key != before


def test_logging_out_by_a_link_is_refused(site: SimpleNamespace) -> None:
    client = Client()
    client.force_login(site.labeler)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/").status_code == 302
    assert client.get("/preferences/").status_code == 302


def test_a_form_without_its_token_is_refused_with_a_page_that_says_what_to_do(site: SimpleNamespace) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(site.labeler)
    page = client.post("/preferences/", {"language": "ko", "theme": "dark"})
    assert page.status_code == 403
    assert "open too long" in page.content.decode()


def test_the_language_can_be_chosen_before_logging_in(db: None) -> None:
    client = Client()
    assert client.post("/language/", {"language": "ko", "next": "/login/"}).headers["location"] == "/login/"
    assert '<html lang="ko">' in client.get("/login/").content.decode()
    client.post("/language/", {"language": "../../etc", "next": "//example.com"})
    assert '<html lang="ko">' in client.get("/login/").content.decode()
