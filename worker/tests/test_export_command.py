"""`manage.py export`: a file without a worker; what is wrong is one line."""

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from labeling.models import Export, Project, User
from labeling.tests.rows import many_ranked


@pytest.fixture
def labelled(project: Project, curator: User) -> Project:
    many_ranked(project, curator, 3)
    return project


def export(*arguments: object) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("export", *map(str, arguments), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("format", Export.Format.values)
def test_the_ending_says_the_format(labelled: Project, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"pairs.{format}"
    out, err = export("help", "--out", path)
    assert f"{path}: 18 rows, {path.stat().st_size} bytes, SHA-256 " in out
    assert err.strip() == "3 of 3 labels"
    assert path.read_bytes()[:4] == {"jsonl": b'{"id', "csv": b"\xef\xbb\xbfi", "parquet": b"PAR1"}[format]
    assert [entry.name for entry in tmp_path.glob("*pairs*")] == [path.name]


def test_names_are_there_for_who_asks_for_them(labelled: Project, tmp_path: Path) -> None:
    path = tmp_path / "file"
    export("help", "--out", path, "--kind", "ratings", "--format", "jsonl", "--identities", "usernames")
    assert {json.loads(line)["labeler"] for line in path.read_text().splitlines()} == {"carol"}


def test_a_web_server_without_pyarrow_says_so(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "worker.parquet", None)
    with pytest.raises(CommandError, match="Parquet needs the packages of a worker"):
        export("help", "--out", tmp_path / "x.parquet")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody", "--out", "x.csv"), "There is no project “nobody”. There are: help."),
        (("help", "--out", "x.xls"), "does not say which format"),
        (("help", "--out", "x.csv", "--language", "fr"), "The project has no such language."),
        (("help", "--out", "nowhere/x.csv"), "cannot be written: No such file or directory."),
        (("help", "--out", "x.csv", "--kind", "prompts"), "invalid choice"),
    ],
)
def test_what_is_wrong_is_one_line(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=words) as refused:
        export(*arguments)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.csv").exists()
