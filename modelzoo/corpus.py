"""Text to learn a language from, as one stream of tokens: JSONL, or shards that are read from disk window by window.

`python -m modelzoo shards` turns the one into the other (`modelzoo/shards.py`); both give the same windows.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelzoo.batches import Example
from modelzoo.checkpoint import CheckpointError, manifest_hash, verify
from modelzoo.data import SnapshotError, encode_example
from modelzoo.tokenizer import Tokenizer

Stream = NDArray[np.uint16 | np.uint32]
HELDOUT_PERCENT = 2
HELDOUT_BYTES = 1_000_000  # of a file; more would cost time and say nothing new


class Document(NamedTuple):
    """A text or a dialogue: its tokens, the end token included, and the size of what people wrote."""

    tokens: list[int]
    bytes: int  # UTF-8; control tokens are none
    heldout: bool


@dataclass(frozen=True)
class Corpus:
    """Streams of token ids to train on and to measure with; `digest` is the identity of what they were read from."""

    train: list[Stream]
    heldout: list[Stream]
    heldout_bytes: int
    digest: str

    @property
    def tokens(self) -> int:
        """To train on."""
        return sum(map(len, self.train))


class Windows(Sequence[Example]):
    """Streams cut into windows of `length` tokens, each built when it is asked for.

    A window starts with the last token of the one before, so that every token but a stream's first is predicted exactly
    once: it is the window's `response`, and what only gives context its `prompt`. The last window of a stream reaches
    back to be as long as the others.
    """

    def __init__(self, streams: Sequence[Stream], length: int) -> None:
        self.length = length
        self._streams = [stream for stream in streams if len(stream) > 1]
        counts = [-(-(len(stream) - 1) // (length - 1)) for stream in self._streams]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        stream = self._streams[number]
        place = (index - (int(self._ends[number - 1]) if number else 0)) * (self.length - 1)
        start = max(0, min(place, len(stream) - self.length))
        tokens = stream[start : start + self.length].tolist()
        known = place - start + 1
        return Example(tokens[:known], tokens[known:])


def open_corpus(path: Path, tokenizer: Tokenizer) -> Corpus:
    """A directory of shards, mapped into memory, or a JSONL file, tokenised now. Raises SnapshotError."""
    if path.is_dir():
        return _map_shards(path, tokenizer)
    streams: dict[bool, list[int]] = {False: [], True: []}
    heldout_bytes, digest = 0, hashlib.sha256()
    for document in documents(path, tokenizer, digest.update):
        streams[document.heldout] += document.tokens
        heldout_bytes += document.bytes * document.heldout
    if not streams[False]:  # a handful of documents, all of them held out by chance
        streams, heldout_bytes = {False: streams[True], True: []}, 0
    dtype = token_type(tokenizer)
    train, heldout = (np.array(streams[part], dtype=dtype) for part in (False, True))
    return Corpus([train], [heldout], heldout_bytes, digest.hexdigest())


def documents(
    path: Path, tokenizer: Tokenizer, seen: Callable[[bytes], object] = lambda line: None
) -> Iterator[Document]:
    """Each line of a JSONL file: `text`, or a dialogue in `messages`, which is rendered with the chat template.

    `seen` is told the file's bytes, line by line. Whether a document is held out is decided by the hash of its line, so
    repeated ones fall on the same side. Raises SnapshotError naming the first line that is neither.
    """
    heldout_bytes = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                seen(line)
                if line.strip():
                    tokens, size = _encoded(line, tokenizer, f"Line {number} of the corpus {path}")
                    hashed = int.from_bytes(hashlib.sha256(line.strip()).digest()[:4], "big")
                    heldout = hashed % 100 < HELDOUT_PERCENT and heldout_bytes < HELDOUT_BYTES
                    heldout_bytes += size * heldout
                    yield Document(tokens, size, heldout)
    except OSError as error:
        raise SnapshotError(f"The corpus {path} cannot be read ({error.strerror}); give JSONL or shards.") from None


def _encoded(line: bytes, tokenizer: Tokenizer, where: str) -> tuple[list[int], int]:
    """The tokens of a line's document and the bytes of what was written in it."""
    try:
        row = json.loads(line)
        if "messages" in row:
            *context, last = row["messages"]
            tokens = encode_example(tokenizer, context, last["content"], finished=True).tokens
            written = "".join(message["content"] for message in row["messages"])
        else:
            written = row["text"]
            tokens = [*tokenizer.encode(written), tokenizer.eos_id]
        return tokens, len(written.encode("utf-8", "replace"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SnapshotError(f'{where} must be UTF-8 JSON with "text" or "messages"; mend or remove it.') from None


def token_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The smallest little-endian unsigned integer that holds every token id."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of its vocabulary and chat template: equal ones give the same ids to the same text."""
    with TemporaryDirectory() as folder:
        tokenizer.save(folder)
        model = Path(folder) / "tokenizer.model"
        vocabulary = (model if model.exists() else Path(folder) / "tokenizer.json").read_bytes()
    return hashlib.sha256(vocabulary + tokenizer.chat_template.encode()).hexdigest()


def _map_shards(directory: Path, tokenizer: Tokenizer) -> Corpus:
    """Shards whose hashes are those of the manifest, without loading them."""
    try:
        manifest = verify(directory)
        digest = manifest_hash(directory)
    except CheckpointError as error:
        raise SnapshotError(f"The corpus cannot be used: {error}; make it again with `modelzoo shards`.") from None
    if manifest.get("kind") != "shards":
        raise SnapshotError(f"{directory} is a {manifest.get('kind')}, not a corpus; make one with `modelzoo shards`.")
    if manifest["tokenizer"] != fingerprint(tokenizer):
        raise SnapshotError(
            f"The corpus {directory} was made with another tokenizer; make it again with `modelzoo shards`."
        )
    shards = {name: _mapped(directory / name, manifest["dtype"]) for name in sorted(manifest["files"])}
    train, heldout = ([shards[name] for name in shards if name.startswith(part)] for part in ("train", "heldout"))
    return Corpus(train, heldout, manifest["heldout_bytes"], digest)


def _mapped(path: Path, dtype: str) -> Stream:
    if not path.stat().st_size:  # nothing cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
