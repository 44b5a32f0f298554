"""What the tests of the curator's pages share."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from labeling.models import Project, Prompt, Role, User
from labeling.tests.rows import HAIKU


@pytest.fixture(autouse=True)
def uploads(settings: Any, tmp_path: Path) -> Path:
    """Uploads of a test stay in its own folder."""
    settings.MEDIA_ROOT = tmp_path / "uploads"
    return tmp_path / "uploads"


@pytest.fixture
def cleo(db: None) -> User:
    """A curator of another project, who must be refused."""
    cleo = User.objects.create_user("cleo")
    cleo.set_roles([Role.CURATOR])
    Project.objects.start(cleo, "Another team", languages=["en", "ko"])
    return cleo


@pytest.fixture
def as_carol(carol: User, project: Project) -> Client:
    client = Client()
    client.force_login(carol)
    return client


@pytest.fixture
def as_cleo(cleo: User) -> Client:
    client = Client()
    client.force_login(cleo)
    return client


@pytest.fixture
def draft(project: Project, carol: User) -> Prompt:
    """An English draft of the project."""
    messages = [{"role": "user", "content": HAIKU}]
    return Prompt.objects.add(project, messages, language="en", tags=["writing"], source="tests", author=carol)
