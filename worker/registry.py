"""Models from elsewhere become model versions: files into the data directory, then a row."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from django.conf import settings
from django.core.exceptions import ValidationError

from modelzoo.checkpoint import CheckpointError, manifest_hash, verify
from modelzoo.import_model import import_model
from rlhf.models import ModelVersion


class CannotImport(Exception):
    """One sentence saying why and what to do."""


def register(source: Path | str, *, name: str, kind: str = "", languages: Sequence[str] = ()) -> ModelVersion:
    """Verify `source` and register it as the version `name`.

    `source` is a checkpoint (a directory with our manifest), a Hugging Face directory, a .gguf file or "starter". It is
    copied into the data directory unless it lies there. Kind and languages are those of a checkpoint's manifest where
    they are not given. Raises CannotImport.
    """
    _require_free_name(name)
    path = Path(source).absolute()
    try:
        if path.is_relative_to(settings.DATA_DIR):
            return _register(path, name, kind, languages)
        directory = settings.DATA_DIR / "models" / name
        if directory.exists():
            raise CannotImport(
                f"{directory} is there already, but not registered. Remove it, or give it as the directory to import."
            )
        try:
            _bring(source, directory, kind, languages)
            return _register(directory, name, kind, languages)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
    except (CheckpointError, OSError) as error:
        raise CannotImport(str(error)) from error


def _bring(source: Path | str, directory: Path, kind: str, languages: Sequence[str]) -> None:
    """Make the checkpoint `directory` of whatever `source` is."""
    if (Path(source) / "manifest.json").is_file():
        verify(source)
        _copy(Path(source), directory)
    else:
        import_model(source, directory, kind=kind or "policy", languages=languages)


def _register(directory: Path, name: str, kind: str, languages: Sequence[str]) -> ModelVersion:
    manifest = verify(directory)
    kind = _checked_kind(kind, manifest["kind"])
    return ModelVersion.objects.create(
        name=name,
        kind=kind,
        directory=str(directory.relative_to(settings.DATA_DIR)),
        manifest_hash=manifest_hash(directory),
        languages=_languages(list(languages) or manifest.get("languages"), kind),
        params=manifest.get("params", {}),
        metrics=manifest.get("metrics", {}),
    )


def _require_free_name(name: str) -> None:
    try:
        ModelVersion(name=name).clean_fields(exclude={field.name for field in ModelVersion._meta.fields} - {"name"})
    except ValidationError as error:
        raise CannotImport(
            f"“{name}” cannot be a name: use small letters, digits, dots, hyphens and underscores."
        ) from error
    if ModelVersion.objects.filter(name=name).exists():
        raise CannotImport(f"There is a model version “{name}” already. Names are never used twice: choose another.")


def _checked_kind(wanted: str, stated: str) -> str:
    """A reward model cannot become a policy by being called one, nor the other way round."""
    if wanted and (wanted == "reward") != (stated == "reward"):
        raise CannotImport(f"The checkpoint says that it is of kind “{stated}”; it cannot be registered as “{wanted}”.")
    return wanted or stated


def _languages(languages: Sequence[str] | None, kind: str) -> list[str]:
    if not languages and kind != ModelVersion.Kind.REWARD:
        raise CannotImport("Say which languages the model speaks, for example --languages en ko.")
    return list(languages or [])


def _copy(source: Path, directory: Path) -> None:
    """Appears whole or not at all."""
    temporary = directory.with_name(f".{directory.name}.{token_hex(6)}.tmp")
    try:
        shutil.copytree(source, temporary)
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
