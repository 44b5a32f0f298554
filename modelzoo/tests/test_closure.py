import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def imported(path: Path) -> set[Path]:
    """The files of this package that a file imports from."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {PACKAGE / f"{name.removeprefix('modelzoo.')}.py" for name in names if name.startswith("modelzoo.")}


def test_whoever_wants_to_understand_ppo_reads_ten_files_and_1500_lines() -> None:
    closure: set[Path] = set()
    unread = {PACKAGE / "train_ppo.py"}
    while unread:
        path = unread.pop()
        closure.add(path)
        unread |= imported(path) - closure
    assert len(closure) <= 10, sorted(path.name for path in closure)
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in closure) <= 1500
