"""spec.json: what a training run is told, checked before anything is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from modelzoo.config import ConfigError, TrainingConfig, build

Config = TypeVar("Config", bound=TrainingConfig)


class BadInput(ValueError):
    """What the run was given cannot be used; the message is one sentence saying what to do."""


@dataclass(frozen=True)
class Spec(Generic[Config]):
    stage: str
    config: Config
    snapshot: Path | None
    policy: Path | None
    reward_model: Path | None
    reference: Path | None
    corpus: Path | None
    tokenizer: Path | None
    languages: tuple[str, ...] | None
    resume_from: tuple[Path, ...]

    def path(self, name: str) -> Path:
        """A path that this stage cannot do without."""
        value: Path | None = getattr(self, name)
        if value is None:
            raise BadInput(f'The spec of a {self.stage} run must name "{name}"; add its path.')
        return value


PATHS = ("snapshot", "policy", "reward_model", "reference", "corpus", "tokenizer")


def load_spec(path: Path, stage: str, config_class: type[Config]) -> Spec[Config]:
    """Raises BadInput naming what is wrong; paths in the spec are relative to the working directory."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"The spec {path} cannot be read ({error.strerror}); give the path of a JSON file.") from None
    except ValueError as error:
        raise BadInput(f"The spec {path} is not JSON ({error}); mend it.") from None
    if not isinstance(content, dict):
        raise BadInput(f"The spec {path} must be a JSON object.")
    unknown = sorted(set(content) - {"stage", "languages", "params", "resume_from", *PATHS})
    if unknown:
        raise BadInput(f"The spec has unknown keys ({', '.join(unknown)}); remove them.")
    if content.get("stage", stage) != stage:
        raise BadInput(f"The spec is for stage {content['stage']!r}, but the {stage} trainer was started with it.")
    try:
        config = build(config_class, _typed(content, "params", dict) or {})
    except ConfigError as error:
        raise BadInput(f"Some parameters cannot be used: {error}.") from None
    languages, resume_from = _typed(content, "languages", list), _typed(content, "resume_from", list)
    if languages == []:
        raise BadInput('"languages" in the spec is empty; name at least one or use null for all.')
    paths = {name: _typed(content, name, str) for name in PATHS}
    return Spec(
        stage=stage,
        config=config,
        languages=None if languages is None else tuple(map(str, languages)),
        resume_from=tuple(Path(attempt) for attempt in resume_from or ()),
        **{name: None if value is None else Path(value) for name, value in paths.items()},
    )


def _typed(content: dict[str, Any], name: str, kind: type[dict[str, Any]] | type[list[Any]] | type[str]) -> Any:
    value = content.get(name)
    if value is not None and not isinstance(value, kind):
        wanted = "text" if kind is str else "an object" if kind is dict else "a list"
        raise BadInput(f'"{name}" in the spec must be {wanted} or null, not {value!r}.')
    return value
