"""The documents say what is there, and all of it."""

import re
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
PACKAGES = ("webapp", "labeling", "rlhf", "worker", "modelzoo")
# Set by us for the processes we start, or read from the system as it is: nobody need know them.
NOT_SETTINGS = {
    "CUDA_VISIBLE_DEVICES",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "DJANGO_SETTINGS_MODULE",
    "OMP_WAIT_POLICY",
    "CUBLAS_WORKSPACE_CONFIG",
}


def documented_settings() -> list[str]:
    """First cells of the tables of docs/settings.md."""
    return re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)


def read_settings() -> set[str]:
    """Names of the environment variables that the code reads."""
    reads = re.compile(r'(?:env\.\w+|_required|environ\.get|environ\.setdefault|getenv)\(\s*"([A-Z][A-Z0-9_]+)"')
    return {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "tests" not in path.parts
        for name in reads.findall(path.read_text())
    } - NOT_SETTINGS


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_every_setting_is_documented_and_no_other() -> None:
    listed = documented_settings()
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == read_settings()


def test_every_make_target_is_documented() -> None:
    told = (ROOT / "docs" / "operations.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    assert {target for target in make_targets() if f"make {target}" not in told} == {"help"} - set(
        re.findall(r"make (help)", told)
    )


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_documents_name_only_make_targets_that_are_there(document: Path) -> None:
    named = set(re.findall(r"`make ([a-z][a-z-]+)|^    make ([a-z][a-z-]+)", document.read_text(), re.MULTILINE))
    assert {first or second for first, second in named} <= make_targets()


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_paths_in_documents_are_there(document: Path) -> None:
    """`labeling/models/slot.py` and the like; several files of one folder may be listed after it."""
    named = re.findall(r"`((?:webapp|labeling|rlhf|worker|modelzoo|requirements|docs)/[\w./-]+)`", document.read_text())
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("## ")[0]
    named = set(re.findall(r"^    ([\w./-]+?)/? {2,}", tree, re.MULTILINE))
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= named
    assert all((ROOT / name).exists() for name in named)


def test_lock_files_name_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text(), lock.name


def test_every_locked_package_has_a_hash() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        for block in re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE):
            assert not re.match(r"[\w.-]+(\[.*\])?==", block) or "--hash=sha256:" in block, block[:80]
