"""One record of a comparison file, whatever program wrote it, as a Comparison."""

from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from labeling.comparisons import (
    Comparison,
    Options,
    finish,
    read_pair,
    read_ranking,
    read_several,
    shape_of,
)
from labeling.other_tools import read_argilla, read_label_studio

SHAPES = {
    "pair": _("pairs: chosen and rejected"),
    "ranking": _("rankings of this program"),
    "several": _("several completions of a prompt"),
    "label_studio": _("Label Studio’s export"),
    "argilla": _("Argilla’s export"),
}


def read(record: dict[str, Any], options: Options) -> Comparison:
    """`record` as a comparison, or ValidationError saying what is wrong with it."""
    shape = shape_of(record)
    try:
        if shape == "pair":
            return finish(read_pair(record))
        if shape == "ranking":
            return finish(read_ranking(record))
        if shape == "several":
            return finish(read_several(record, options))
        if shape == "label_studio":
            return finish(read_label_studio(record))
        if shape == "argilla":
            return finish(read_argilla(record, options))
    except (TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
        # A stranger's record may hold anything anywhere; it costs itself, not the import.
        raise ValidationError(_("The record is not built as its keys promise.")) from error
    raise ValidationError(_("This is no comparison: neither chosen and rejected, nor completions, nor a known export."))
