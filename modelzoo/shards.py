"""A corpus as files of token ids, which training maps into memory: made once, read without tokenising or loading it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelzoo.checkpoint import write_directory_atomically
from modelzoo.corpus import documents, fingerprint, token_type
from modelzoo.data import SnapshotError
from modelzoo.tokenizer import Tokenizer

SHARD_TOKENS = 100_000_000


def write_shards(
    sources: Sequence[Path], tokenizer: Tokenizer, directory: Path, shard_tokens: int = SHARD_TOKENS
) -> dict[str, Any]:
    """Tokenise JSONL files into `directory`, whole or not at all; returns its manifest without the files' hashes.

    `train-00000.bin`, `train-00001.bin`, ... and `heldout-00000.bin` are token ids and nothing else, of the manifest's
    `dtype`; each document ends with an end token, and a shard with a document. Raises SnapshotError.
    """
    dtype = token_type(tokenizer)
    manifest: dict[str, Any] = {
        "kind": "shards",
        "dtype": dtype.str,
        "tokenizer": fingerprint(tokenizer),
        "documents": {"train": 0, "heldout": 0},
        "tokens": {"train": 0, "heldout": 0},
        "train_bytes": 0,
        "heldout_bytes": 0,
    }

    def write(temporary: Path) -> None:
        for part in ("train", "heldout"):
            (temporary / f"{part}-00000.bin").touch()
        for source in sources:
            for document in documents(source, tokenizer):
                part = "heldout" if document.heldout else "train"
                shard = manifest["tokens"][part] // shard_tokens
                with (temporary / f"{part}-{shard:05d}.bin").open("ab") as file:
                    file.write(np.array(document.tokens, dtype=dtype).tobytes())
                manifest["documents"][part] += 1
                manifest["tokens"][part] += len(document.tokens)
                manifest[f"{part}_bytes"] += document.bytes
        if not manifest["tokens"]["train"]:
            raise SnapshotError(
                f"There is no text to train on in {', '.join(map(str, sources))}; name files with some."
            )

    write_directory_atomically(directory, write, manifest)
    return manifest
