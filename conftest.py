"""People whom the tests of every package share. Alice and Bob label in the project, Charlie must be refused."""

from collections.abc import Iterator

import pytest
from django.utils import translation

from labeling.models import Project, Role, User

pytest_plugins = ["webapp.tests.browser"]

# Begun first, so that no process is left with one of them when the others are done.
LONGEST = (
    "webapp/tests/test_journeys.py",
    "worker/tests/test_loop_command.py",
    "worker/tests/test_processes.py",
    "worker/tests/test_training.py",
    "modelzoo/tests/test_distributed.py",
    "modelzoo/tests/test_resume.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def person(name: str, *roles: str) -> User:
    user = User.objects.create_user(name)
    user.set_roles(roles)
    return user


@pytest.fixture(autouse=True)
def language() -> Iterator[None]:
    """A page shown in Korean leaves Korean on in its thread; the next test starts in the language of the settings."""
    translation.deactivate()
    yield
    translation.deactivate()


@pytest.fixture
def alice(db: None) -> User:
    return person("alice", Role.LABELER)


@pytest.fixture
def bob(db: None) -> User:
    return person("bob", Role.LABELER)


@pytest.fixture
def charlie(db: None) -> User:
    """A labeler of another team."""
    return person("charlie", Role.LABELER)


@pytest.fixture
def carol(db: None) -> User:
    return person("carol", Role.CURATOR)


@pytest.fixture
def project(alice: User, bob: User, carol: User) -> Project:
    """English and Korean prompts; the current policy, `tiny-1`, speaks English."""
    project = Project.objects.create(name="Everyday help", slug="everyday", languages=["en", "ko"])
    project.set_policy("tiny-1", ["en"])
    project.members.add(alice, bob, carol)
    return project
