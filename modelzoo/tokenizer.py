"""Text to token ids and back: sentencepiece models that we train, and Hugging Face's `tokenizer.json`.

`encode` reads text as text: the string of a control token in it gives ordinary tokens. Control tokens come from the
chat template alone (`encode_chat`), and the one that ends a turn from `encode_response`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from modelzoo.chat_template import TURN_TEMPLATE, Message, render
from modelzoo.tokenizer_json import META_SPACE, sentencepiece_to_json


class TokenizerError(ValueError):
    """A tokenizer's files cannot be used; the text says which and why."""


@dataclass(frozen=True)
class SpecialTokens:
    """Strings of the tokens with a role; `stop` ends a response besides EOS and the template's end of turn."""

    eos: str
    pad: str
    bos: str | None = None
    stop: tuple[str, ...] = ()


def free_special_token(control_tokens: Mapping[str, int], used: Iterable[str | None], template: str) -> str:
    """A control token that has no other job, to pad with where a model pads with its EOS or not at all."""
    taken = set(used)
    free = [name for name in control_tokens if name not in taken and name not in template]
    if not free:
        raise TokenizerError("it pads with its end-of-text token, and has no other special token to pad with")
    named = (name for word in ("pad", "reserved", "unused", "unk") for name in free if word in name.lower())
    return next(named, free[-1])


class Tokenizer(ABC):
    """What the trainers and the sampler know of a tokenizer."""

    control_tokens: dict[str, int]  # never made from text, skipped when decoding

    def __init__(self, control_tokens: dict[str, int], special: SpecialTokens, chat_template: str) -> None:
        names = (special.eos, special.pad, *special.stop, *((special.bos,) if special.bos else ()))
        if missing := [name for name in names if name not in control_tokens]:
            raise TokenizerError(f"the tokenizer has no special token {', '.join(map(repr, missing))}")
        self.control_tokens, self.special, self.chat_template = control_tokens, special, chat_template
        self.eos_id = control_tokens[special.eos]
        self.pad_id = control_tokens[special.pad]
        self.bos_id = control_tokens[special.bos] if special.bos else None
        self.end_of_turn_id = self._end_of_turn()
        self.stop_ids = tuple(sorted({self.eos_id, self.end_of_turn_id, *(control_tokens[s] for s in special.stop)}))
        if self.pad_id in self.stop_ids:
            raise TokenizerError(f"padding and end of text are both {special.pad!r}: a model could never learn to stop")
        self._control_ids = frozenset(control_tokens.values())

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids."""

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abstractmethod
    def _save_files(self, directory: Path) -> dict[str, Any]:
        """Write the vocabulary's files; returns what they add to tokenizer_config.json."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without control tokens whatever the text says. Lone surrogates become '?'."""
        ids = self._encode(text.encode("utf-8", "replace").decode("utf-8"))
        return [i for i in ids if i not in self._control_ids]  # a vocabulary may name a control token as its "unknown"

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; control tokens are skipped, bytes that are no UTF-8 become U+FFFD."""
        return self._decode([int(i) for i in ids if int(i) not in self._control_ids])

    def encode_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation. Raises ChatTemplateError on a message that has no known role or no text."""
        parts = self.render_chat(messages, add_generation_prompt)
        ids: list[int] = []
        for part in parts:
            ids.extend([part] if isinstance(part, int) else self.encode(part))
        return ids

    def render_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int | str]:
        """A conversation as ids of control tokens and runs of text between them. Raises ChatTemplateError."""
        variables = {"bos_token": self.special.bos or "", "eos_token": self.special.eos, "pad_token": self.special.pad}
        return render(
            self.chat_template,
            messages,
            self.control_tokens,
            add_generation_prompt=add_generation_prompt,
            variables=variables,
        )

    def encode_response(self, text: str, finished: bool) -> list[int]:
        """Token ids of what the assistant said, with the end of turn only if it did finish."""
        return self.encode(text) + ([self.end_of_turn_id] if finished else [])

    def _end_of_turn(self) -> int:
        """The control token that the template puts right after an assistant's words; EOS where it puts none."""
        words = "words"
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": words}]
        parts = self.render_chat(turns, add_generation_prompt=False)
        last_words = max((n for n, part in enumerate(parts) if isinstance(part, str) and words in part), default=None)
        if last_words is None:
            raise TokenizerError("the chat template leaves out what the assistant says")
        following = parts[last_words + 1 : last_words + 2]
        return following[0] if following and isinstance(following[0], int) else self.eos_id

    def save(self, directory: Path | str) -> None:
        """Write the tokenizer's files into an existing directory; `load_tokenizer` and transformers read them."""
        directory = Path(directory)
        config = {
            **self._save_files(directory),
            "bos_token": self.special.bos,
            "eos_token": self.special.eos,
            "pad_token": self.special.pad,
            "stop_tokens": list(self.special.stop),
            "clean_up_tokenization_spaces": False,
            "chat_template": self.chat_template,
        }
        text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json` run by the tokenizers library."""

    def __init__(self, definition: str, special: SpecialTokens, chat_template: str) -> None:
        self._tokenizer = _parse(definition)
        self._definition = definition
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # strings of special tokens are text
        super().__init__(_control_tokens(self._tokenizer), special, chat_template)

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def _save_files(self, directory: Path) -> dict[str, Any]:
        (directory / "tokenizer.json").write_text(self._definition, encoding="utf-8")
        return {"tokenizer_class": "PreTrainedTokenizerFast"}


def control_tokens_of(definition: str) -> dict[str, int]:
    """The special tokens of a `tokenizer.json` and their ids. Raises TokenizerError."""
    return _control_tokens(_parse(definition))


def add_control_token(definition: str, name: str) -> str:
    """The `tokenizer.json` with one more special token, behind all others. Raises TokenizerError."""
    tokenizer = _parse(definition)
    tokenizer.add_special_tokens([name])
    return str(tokenizer.to_str(pretty=True))


def _parse(definition: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"tokenizer.json cannot be read: {error}") from error


def _control_tokens(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    return {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}


class SentencePieceTokenizer(Tokenizer):
    """A sentencepiece BPE model with byte fallback: any text there is comes back exactly."""

    def __init__(self, model: bytes, special: SpecialTokens, chat_template: str = TURN_TEMPLATE) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"tokenizer.model is not a sentencepiece model: {error}") from error
        ids = range(self._processor.get_piece_size())
        control = {self._processor.id_to_piece(i): i for i in ids if self._processor.is_control(i)}
        self._meta_space = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in META_SPACE.encode()]
        super().__init__(control, special, chat_template)

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size())

    def _encode(self, text: str) -> list[int]:
        runs = text.split(META_SPACE)  # the character itself would come back as a space, so it goes as bytes
        ids: list[int] = list(self._processor.encode(runs[0]))
        for run in runs[1:]:
            ids += self._meta_space + list(self._processor.encode(run))
        return ids

    def _decode(self, ids: list[int]) -> str:
        return str(self._processor.decode(ids))

    def _save_files(self, directory: Path) -> dict[str, Any]:
        """Both forms: sentencepiece's own, which we read, and the same merges as tokenizer.json for transformers."""
        (directory / "tokenizer.model").write_bytes(self._model)
        (directory / "tokenizer.json").write_text(sentencepiece_to_json(self._processor), encoding="utf-8")
        return {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": self._processor.id_to_piece(0)}


TRAINED_SPECIAL = SpecialTokens(bos="<s>", eos="<|end|>", pad="<pad>")


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    directory: Path | str | None = None,
    *,
    character_coverage: float = 0.9995,
) -> SentencePieceTokenizer:
    """Train BPE with byte fallback on `texts` and, given a directory, save it there.

    Text is taken as it is (no normalisation, spaces kept). Raises TokenizerError where there is no text, or too little
    for a vocabulary of that size.
    """
    model = BytesIO()
    cleaned = (text.encode("utf-8", "replace").decode("utf-8") for text in texts)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in cleaned for line in text.splitlines(keepends=True) if line.strip()),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            character_coverage=character_coverage,
            max_sentence_length=1 << 20,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            bos_piece=TRAINED_SPECIAL.bos,
            eos_piece=TRAINED_SPECIAL.eos,
            pad_piece=TRAINED_SPECIAL.pad,
            control_symbols=["<|system|>", "<|user|>", "<|assistant|>"],
            num_threads=1,  # more of them may order equal merges differently
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(_training_failure(str(error), vocab_size)) from error
    tokenizer = SentencePieceTokenizer(model.getvalue(), TRAINED_SPECIAL)
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        tokenizer.save(directory)
    return tokenizer


def _training_failure(reason: str, vocab_size: int) -> str:
    if "sentences_.empty()" in reason:
        return "there is no text to train a tokenizer on"
    if "too high" in reason:
        limit = reason.rstrip(". \n").rsplit(" ", 1)[-1]
        return f"this text is too short for a vocabulary of {vocab_size}; at most {limit} is possible"
    return f"sentencepiece cannot train a vocabulary of {vocab_size}: {reason}"


def load_tokenizer(directory: Path | str) -> Tokenizer:
    """Read what `Tokenizer.save` wrote. Raises TokenizerError naming the file that is missing or unreadable."""
    directory = Path(directory)
    config = read_json(directory / "tokenizer_config.json")
    for name in ("eos_token", "pad_token", "chat_template"):
        if not isinstance(config.get(name), str):
            raise TokenizerError(f"tokenizer_config.json: {name} is missing")
    special = SpecialTokens(
        eos=config["eos_token"],
        pad=config["pad_token"],
        bos=config.get("bos_token"),
        stop=tuple(config.get("stop_tokens") or ()),
    )
    if (directory / "tokenizer.model").exists():
        return SentencePieceTokenizer((directory / "tokenizer.model").read_bytes(), special, config["chat_template"])
    if (directory / "tokenizer.json").exists():
        definition = (directory / "tokenizer.json").read_text(encoding="utf-8")
        return HuggingFaceTokenizer(definition, special, config["chat_template"])
    raise TokenizerError(f"{directory} holds neither tokenizer.json nor tokenizer.model")


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file, or TokenizerError naming it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TokenizerError(f"{path} is missing") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object")
    return value
