"""Sets of completions with the models that wrote them: never for labelers, who get theirs inside a task."""

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from rest_framework import serializers, viewsets

from labeling.api.permissions import CuratesOrReads
from labeling.api.prompts import visible_projects
from labeling.models import Completion, CompletionSet, Prompt


class CompletionSerializer(serializers.ModelSerializer[Completion]):
    class Meta:
        model = Completion
        fields = ["index", "text", "model_name", "logprob_sum", "token_count", "finish_reason"]


class CompletionSetSerializer(serializers.ModelSerializer[CompletionSet]):
    completions = CompletionSerializer(many=True, read_only=True)
    error = serializers.CharField(source="job.error", read_only=True, default="")

    class Meta:
        model = CompletionSet
        fields = [
            "id",
            "project",
            "prompt",
            "k",
            "origin",
            "source",
            "state",
            "policy_name",
            "temperature",
            "top_p",
            "max_new_tokens",
            "seed",
            "error",
            "created_at",
            "completions",
        ]


class CompletionSetFilter(filters.FilterSet):
    project = filters.ModelChoiceFilter(queryset=visible_projects)
    prompt = filters.ModelChoiceFilter(queryset=lambda request: Prompt.objects.visible_to(request.user))
    state = filters.ChoiceFilter(choices=CompletionSet.State.choices)


class CompletionSetViewSet(viewsets.ReadOnlyModelViewSet[CompletionSet]):
    """Sets of K completions with sampling settings and models, for curators, ops and admins."""

    serializer_class = CompletionSetSerializer
    permission_classes = [CuratesOrReads]
    filterset_class = CompletionSetFilter
    lookup_value_converter = "int"
    queryset = CompletionSet.objects.none()

    def get_queryset(self) -> QuerySet[CompletionSet]:
        sets = CompletionSet.objects.visible_to(self.request.user)
        return sets.select_related("job").prefetch_related("completions")
