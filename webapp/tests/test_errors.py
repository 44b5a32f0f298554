"""Pages for what goes wrong: in the site's own clothes, in the reader's language, telling no more than they should."""

from types import SimpleNamespace

import pytest
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from webapp import urls


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a secret in the traceback")


def suspicious(request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation("?")


urlpatterns = [*urls.urlpatterns, path("broken/", broken), path("suspicious/", suspicious)]


@pytest.mark.parametrize("address", ["/no/such/page/", "/api/no/such/", "/%00/", "/" + "x" * 5000, "/%ff%fe/"])
def test_what_is_not_there_is_said_so(site: SimpleNamespace, address: str) -> None:
    client = Client(headers={"accept-language": "ko"})
    page = client.get(address)
    assert page.status_code == 404
    assert '<html lang="ko">' in page.content.decode()


@pytest.mark.urls("webapp.tests.test_errors")
def test_a_crash_tells_no_secret_and_what_to_do(site: SimpleNamespace) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(site.labeler)
    page = client.get("/broken/")
    assert page.status_code == 500
    assert "secret" not in page.content.decode()
    assert "go back" in page.content.decode()


@pytest.mark.urls("webapp.tests.test_errors")
def test_a_request_that_makes_no_sense_is_a_bad_request(site: SimpleNamespace) -> None:
    page = Client().get("/suspicious/")
    assert page.status_code == 400
    assert "reload the page" in page.content.decode()


def test_whoever_lacks_the_role_is_told_whom_to_ask(site: SimpleNamespace) -> None:
    client = Client()
    client.force_login(site.labeler)
    page = client.get("/projects/")
    assert page.status_code == 403
    assert "Ask an admin" in page.content.decode()


@pytest.mark.parametrize("address", ["/login/", "/no/such/page/", "/healthz", "/api/projects/"])
def test_every_answer_carries_the_policy_against_injected_script(site: SimpleNamespace, address: str) -> None:
    answer = Client().get(address)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
