"""docs/training.md promises a test for each row of its checklist; here the promise is kept."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
GUIDE = TESTS.parent.parent / "docs" / "training.md"
ROWS = re.findall(r"^\| (\d+) \| .+ \| ((?:`test_\w+`(?:, )?)+) \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)


def defined() -> set[str]:
    return {
        name
        for path in TESTS.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_the_checklist_has_its_26_rows() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 27))


@pytest.mark.parametrize(("number", "tests"), ROWS)
def test_every_test_that_the_checklist_names_is_there(number: str, tests: str) -> None:
    assert set(re.findall(r"test_\w+", tests)) <= defined()
