import json
from pathlib import Path

import numpy as np
import pytest

from modelzoo.__main__ import main
from modelzoo.corpus import Windows, documents, open_corpus
from modelzoo.data import SnapshotError
from modelzoo.tests.conftest import SENTENCE, WORDS
from modelzoo.tokenizer import Tokenizer, train_sentencepiece

Lines = list[dict[str, object]]
TEXTS: Lines = [{"text": f"{word} {other}"} for word in WORDS for other in WORDS[:9]]


def write_corpus(folder: Path, rows: Lines = TEXTS) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def tokenizer_directory(tokenizer: Tokenizer, tmp_path: Path) -> str:
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def write_shards(folder: Path, corpus: Path, tokenizer: str, *options: str) -> Path:
    shards = folder / "shards"
    assert main(["shards", str(shards), "--corpus", str(corpus), "--tokenizer", tokenizer, *options]) == 0
    return shards


# Windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3, 8, 20, 50])
@pytest.mark.parametrize("sizes", [[20], [21], [2], [1, 0], [], [19, 3, 8]])
def test_windows_predict_every_token_of_a_stream_but_its_first_exactly_once(sizes: list[int], length: int) -> None:
    streams = [np.arange(100 * n, 100 * n + size, dtype=np.uint16) for n, size in enumerate(sizes)]
    windows = Windows(streams, length)
    predicted = [token for window in windows for token in window.response]
    assert predicted == [token for stream in streams for token in stream[1:].tolist()]
    for window in windows:
        tokens = window.prompt + window.response
        assert len(tokens) == min(length, len(streams[tokens[0] // 100]))
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))  # one stream, nothing left out
    assert len(windows) == len(list(windows))


def test_a_window_that_is_not_there_is_an_index_error() -> None:
    windows = Windows([np.arange(5, dtype=np.uint16)], 3)
    assert windows[:1] == [windows[0]]
    for index in (2, -1):
        with pytest.raises(IndexError):
            windows[index]


# JSONL ------------------------------------------------------------------------------------------------------------


def test_documents_and_dialogues_end_and_nothing_else_is_added(tokenizer: Tokenizer, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "cat"}, {"role": "assistant", "content": "안녕"}]
    path = write_corpus(tmp_path, [{"text": SENTENCE}, {"messages": turns}])
    text, dialogue = documents(path, tokenizer)
    assert text.tokens == [*tokenizer.encode(SENTENCE), tokenizer.eos_id]
    assert dialogue.tokens == tokenizer.encode_chat(turns, add_generation_prompt=False)
    assert (text.bytes, dialogue.bytes) == (len(SENTENCE), 3 + 6)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"title": "x"}', '{"messages": []}', '{"text": null}', '{"messages": [{}]}', "\udcff"]
)
def test_a_corpus_with_a_broken_line_is_refused_by_its_number(tokenizer: Tokenizer, tmp_path: Path, line: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes((json.dumps({"text": "cat"}) + "\n\n" + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(SnapshotError, match="Line 3 of the corpus"):
        open_corpus(path, tokenizer)


def test_the_same_documents_are_held_out_each_time_and_repeated_ones_together(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = write_corpus(tmp_path, TEXTS + TEXTS)
    held = [document.heldout for document in documents(path, tokenizer)]
    assert held[: len(TEXTS)] == held[len(TEXTS) :]
    assert 0 < sum(held) < 0.1 * len(held)
    corpus = open_corpus(path, tokenizer)
    (heldout,) = corpus.heldout
    assert list(heldout) == [t for document in documents(path, tokenizer) if document.heldout for t in document.tokens]
    assert corpus.heldout_bytes == sum(document.bytes for document in documents(path, tokenizer) if document.heldout)


def test_no_more_is_held_out_than_it_takes_to_measure(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelzoo.corpus.HELDOUT_PERCENT", 100)
    monkeypatch.setattr("modelzoo.corpus.HELDOUT_BYTES", 50)
    held = [document for document in documents(write_corpus(tmp_path), tokenizer) if document.heldout]
    assert 50 <= sum(document.bytes for document in held) < 50 + len(SENTENCE)


# Shards -----------------------------------------------------------------------------------------------------------


def test_shards_and_the_jsonl_they_were_made_from_give_the_same_windows(
    tokenizer: Tokenizer, tokenizer_directory: str, tmp_path: Path
) -> None:
    path = write_corpus(tmp_path)
    shards = open_corpus(write_shards(tmp_path, path, tokenizer_directory), tokenizer)
    jsonl = open_corpus(path, tokenizer)
    assert list(Windows(shards.train, 8)) == list(Windows(jsonl.train, 8))
    assert list(Windows(shards.heldout, 8)) == list(Windows(jsonl.heldout, 8))
    assert (shards.tokens, shards.heldout_bytes) == (jsonl.tokens, jsonl.heldout_bytes)


def test_shards_are_mapped_and_not_loaded(tokenizer: Tokenizer, tokenizer_directory: str, tmp_path: Path) -> None:
    corpus = open_corpus(write_shards(tmp_path, write_corpus(tmp_path), tokenizer_directory), tokenizer)
    assert all(isinstance(stream, np.memmap) for stream in [*corpus.train, *corpus.heldout])
    assert corpus.train[0].dtype == np.dtype("<u2")


def test_many_small_shards_hold_whole_documents_and_all_of_them(
    tokenizer: Tokenizer, tokenizer_directory: str, tmp_path: Path
) -> None:
    path = write_corpus(tmp_path)
    shards = write_shards(tmp_path, path, tokenizer_directory, "--shard-tokens", "100")
    corpus, whole = open_corpus(shards, tokenizer), open_corpus(path, tokenizer)
    assert len(corpus.train) > 5
    assert all(shard[-1] == tokenizer.eos_id for shard in corpus.train)
    assert np.array_equal(np.concatenate(corpus.train), whole.train[0])


def test_shards_with_a_flipped_bit_are_refused(
    tokenizer: Tokenizer, tokenizer_directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write_shards(tmp_path, write_corpus(tmp_path), tokenizer_directory)
    content = bytearray((shards / "train-00000.bin").read_bytes())
    content[7] ^= 1
    (shards / "train-00000.bin").write_bytes(content)
    with pytest.raises(SnapshotError, match="train-00000.bin is corrupt"):
        open_corpus(shards, tokenizer)
    assert main(["verify", str(shards)]) == 2


def test_shards_of_another_tokenizer_are_refused(
    tokenizer: Tokenizer, tokenizer_directory: str, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path, write_corpus(tmp_path), tokenizer_directory)
    with pytest.raises(SnapshotError, match="another tokenizer"):
        open_corpus(shards, train_sentencepiece([SENTENCE] * 4, 300))


def test_a_model_is_not_a_corpus(policy_directory: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(SnapshotError, match="is a base, not a corpus"):
        open_corpus(policy_directory, tokenizer)


def test_a_corpus_without_text_becomes_no_shards(
    tokenizer_directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    arguments = ["--corpus", str(tmp_path / "empty.jsonl"), "--tokenizer", tokenizer_directory]
    assert main(["shards", str(tmp_path / "shards"), *arguments]) == 2
    assert "no text to train on" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
