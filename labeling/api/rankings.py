"""Rankings: one's own for labelers, those of their projects for curators and ops."""

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from rest_framework import serializers, viewsets

from labeling.api.prompts import MessageSerializer, visible_projects
from labeling.models import Answer, Completion, Revision


class RevisionSerializer(serializers.ModelSerializer[Revision]):
    class Meta:
        model = Revision
        fields = [
            "number",
            "verdict",
            "tiers",
            "strength",
            "ratings",
            "shown_order",
            "note",
            "active_seconds",
            "instruction_version",
            "created_at",
        ]


class JudgedCompletionSerializer(serializers.ModelSerializer[Completion]):
    """A completion as labelers know it: without the model, its probability or its length in tokens."""

    class Meta:
        model = Completion
        fields = ["index", "text", "finish_reason"]


class RankingSerializer(serializers.ModelSerializer[Answer]):
    prompt = serializers.IntegerField(source="completion_set.prompt_id", read_only=True)
    messages = MessageSerializer(source="completion_set.prompt.messages", many=True, read_only=True)
    completions = JudgedCompletionSerializer(source="completion_set.completions", many=True, read_only=True)
    labeler = serializers.CharField(
        source="labeler.username",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="Null where it was imported.",
    )
    revision = RevisionSerializer(source="current", read_only=True)

    class Meta:
        model = Answer
        fields = [
            "id",
            "completion_set",
            "prompt",
            "messages",
            "completions",
            "labeler",
            "source",
            "annotator",
            "repeat",
            "revision",
            "created_at",
        ]


class RankingFilter(filters.FilterSet):
    project = filters.ModelChoiceFilter(field_name="completion_set__project", queryset=visible_projects)


class RankingViewSet(viewsets.ReadOnlyModelViewSet[Answer]):
    """What was submitted: `revision.tiers[i]` is the tier of completion i, 1 is best, equal numbers are tied."""

    serializer_class = RankingSerializer
    filterset_class = RankingFilter
    lookup_value_converter = "int"
    queryset = Answer.objects.none()

    def get_queryset(self) -> QuerySet[Answer]:
        seen: Any = Answer.objects.visible_to(self.request.user)
        return seen.select_related("current", "labeler", "completion_set__prompt").prefetch_related(  # type: ignore[no-any-return]
            "completion_set__completions"
        )
