"""The people and rows that tests of the whole site share."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labeling.tests import world
from rlhf.models import Promotion
from rlhf.tests.world import model_version


@pytest.fixture
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = settings.MEDIA_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def site(db: None, data_dir: Path) -> SimpleNamespace:
    """People of each role with a project, and another team with one of its own."""
    site = SimpleNamespace(
        labeler=world.person("lena", "labeler"),
        second=world.person("luis", "labeler"),
        curator=world.person("cora", "curator"),
        ops=world.person("oleg", "ops"),
        admin=world.person("ada", "admin"),
        stranger=world.person("sam", "labeler"),
        other_curator=world.person("cleo", "curator"),
        version=model_version("tiny-base"),
    )
    site.project = world.project("Ours", site.labeler, site.second, site.curator)
    site.foreign = world.project("Theirs", site.stranger, site.other_curator)
    for project in (site.project, site.foreign):
        Promotion.objects.promote(project, site.version, site.ops)
    return site
