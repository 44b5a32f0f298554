"""Instructions: versions that are never lost, shown as harmless HTML."""

import pytest
from django.test import Client
from django.urls import reverse

from labeling.markdown import render
from labeling.models import Project, User


def publish(client: Client, project: Project, base: int, **bodies: str) -> object:
    data = {"base": base, **{f"body-{code}": text for code, text in bodies.items()}}
    return client.post(reverse("instructions_edit", args=[project.slug]), data)


def test_publishing_makes_a_new_version_and_keeps_the_old(as_carol: Client, project: Project, carol: User) -> None:
    publish(as_carol, project, 0, en="Be kind.", ko="친절하게.")
    publish(as_carol, project, 1, en="Be kind and brief.", ko="친절하게.")
    versions = {row.number: row.bodies for row in project.instruction_versions.all()}
    assert versions == {1: {"en": "Be kind.", "ko": "친절하게."}, 2: {"en": "Be kind and brief.", "ko": "친절하게."}}
    page = as_carol.get(reverse("instruction_version", args=[project.slug, 1])).content.decode()
    assert "Be kind." in page and "Be kind and brief." not in page and "Version 2" in page


def test_nothing_changed_is_no_new_version(as_carol: Client, project: Project) -> None:
    publish(as_carol, project, 0, en="Be kind.")
    publish(as_carol, project, 1, en="Be kind.")
    assert project.instruction_versions.count() == 1


def test_a_version_published_meanwhile_is_not_overwritten(as_carol: Client, project: Project, carol: User) -> None:
    project.revise_instructions({"en": "By somebody else."}, carol)
    response = publish(as_carol, project, 0, en="Mine.")
    text = response.content.decode()  # type: ignore[attr-defined]
    assert "Version 1 was published meanwhile" in text and "Mine." in text
    assert project.instruction_versions.count() == 1


def test_instructions_in_no_language_are_refused(as_carol: Client, project: Project) -> None:
    response = publish(as_carol, project, 0, en=" ", ko="")
    assert "Write the instructions in at least one language." in response.content.decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "![x](https://example.com/pixel.png)",
        '<img src=x onerror="alert(1)">',
        '<a href="https://example.com" onclick="x()">y</a>',
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
    ],
)
def test_markdown_can_do_no_harm(text: str) -> None:
    html = render(text)
    assert "<script" not in html and "<img" not in html
    assert 'href="javascript' not in html and 'href="data' not in html
    assert "<a href" not in html or "onclick" not in html


def test_markdown_makes_what_a_text_needs() -> None:
    html = render("# Head\n\n- **bold**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[link](https://example.com)", 1)
    for part in ("<h2>Head</h2>", "<li><strong>bold</strong></li>", "<td>1</td>", 'href="https://example.com"'):
        assert part in html
