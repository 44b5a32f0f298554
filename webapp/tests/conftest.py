"""The people and rows that tests of the whole site share."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from webapp.tests.teams import people


@pytest.fixture
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = settings.MEDIA_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def site(db: None, data_dir: Path) -> SimpleNamespace:
    return people()
