import json
from pathlib import Path

import pytest

from modelzoo.__main__ import main
from modelzoo.tokenizer import load_tokenizer


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_checkpoint_goes_out_and_comes_in_again(
    policy_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", policy_directory, tmp_path / "hf") == 0
    assert run("import", tmp_path / "hf", tmp_path / "again", "--language", "ko", "--language", "en") == 0
    assert json.loads((tmp_path / "again/manifest.json").read_text())["languages"] == ["ko", "en"]
    capsys.readouterr()
    assert run("verify", tmp_path / "again") == 0
    assert "policy, 5 files" in capsys.readouterr().out


def test_sample_prints_each_completion(policy_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("sample", policy_directory, "the cat", "--system", "good", "-k", 3, "--max-new-tokens", 4)
    assert run(*words, "--temperature", 0.8, "--seed", 5) == 0
    first = capsys.readouterr().out
    assert first.count("--- ") == 3
    assert run(*words, "--temperature", 0.8, "--seed", 5) == 0
    assert capsys.readouterr().out == first


def test_a_tokenizer_is_trained_on_columns(tmp_path: Path) -> None:
    (tmp_path / "talk.csv").write_text("Q,A\n밥은 먹었어?,네 먹었어요\n뭐 해?,그냥 있어요\n", encoding="utf-8-sig")
    (tmp_path / "talk.jsonl").write_text('{"Q": "날씨 어때?", "A": "좋아요"}\n', encoding="utf-8")
    words = ("--text", tmp_path / "talk.csv", "--text", tmp_path / "talk.jsonl", "--column", "Q", "--column", "A")
    assert run("tokenizer", tmp_path / "tokenizer", *words, "--vocab-size", 295) == 0
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.vocab_size == 295
    assert tokenizer.decode(tokenizer.encode("밥은 먹었어?")) == "밥은 먹었어?"


def test_bad_input_is_one_line_and_exit_code_2(
    policy_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "talk.csv").write_text("Q,A\n1,2\n", encoding="utf-8")
    (tmp_path / "talk.jsonl").write_text("nonsense\n", encoding="utf-8")
    cases = {
        ("verify", tmp_path / "nothing"): "manifest.json is missing",
        ("import", tmp_path / "nothing", tmp_path / "x"): "is missing",
        ("import", tmp_path / "talk.csv", tmp_path / "x"): "is not a complete GGUF file",
        ("export", policy_directory, tmp_path): "exists already",
        ("sample", policy_directory, "hi", "--top-p", 3): "top_p: must be at most 1.0",
        ("sample", policy_directory, "hi", "-k", 0): "k: must be at least 1",
        ("sample", policy_directory, "cat " * 500): "shorten it",
        ("tokenizer", tmp_path / "t", "--text", tmp_path / "latin.txt"): "is not UTF-8",
        ("tokenizer", tmp_path / "t", "--text", tmp_path / "none.txt"): "No such file",
        ("tokenizer", tmp_path / "t", "--text", tmp_path / "talk.csv", "--column", "B"): "row 1 has no text in 'B'",
        ("tokenizer", tmp_path / "t", "--text", tmp_path / "talk.jsonl", "--column", "B"): "neither CSV nor JSONL",
    }
    for words, message in cases.items():
        assert run(*words) == 2, words
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, words
