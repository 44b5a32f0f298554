"""Models from elsewhere as checkpoints: the starter model, a GGUF file, or a Hugging Face directory."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from modelzoo.checkpoint import CheckpointError, save_checkpoint
from modelzoo.gguf_reader import STARTER_WHEEL, read_gguf, starter_model_path
from modelzoo.huggingface import read_huggingface
from modelzoo.tokenizer import Tokenizer
from modelzoo.transformer import Transformer

STARTER = "starter"


def import_model(
    source: Path | str, directory: Path | str, *, languages: Sequence[str] | None = None, kind: str = "policy"
) -> str:
    """Write `source` as a checkpoint and return its manifest's SHA-256.

    `source` is "starter", a .gguf file, or a Hugging Face directory. `languages` is needed where the source does not
    state any. Raises CheckpointError or NoSpaceError.
    """
    model, tokenizer, stated, origin = _read(source)
    languages = list(languages or stated)
    if not languages:
        raise CheckpointError(f"{source} does not say which languages it speaks: name them, for example en")
    return save_checkpoint(
        directory, model, tokenizer, kind=kind, languages=languages, params={"imported_from": origin}
    )


def _read(source: Path | str) -> tuple[Transformer, Tokenizer, list[str], str]:
    path = starter_model_path() if str(source) == STARTER else Path(source)
    origin = f"{STARTER_WHEEL} {metadata.version(STARTER_WHEEL)}: {path.name}" if str(source) == STARTER else path.name
    if path.is_dir():
        return *read_huggingface(path), [], origin
    if not path.exists():
        raise CheckpointError(f"{path} is missing: give 'starter', a .gguf file, or a Hugging Face directory")
    return *read_gguf(path), origin
