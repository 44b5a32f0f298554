"""Demonstrations: one's own for labelers, those of their projects for curators and ops."""

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from rest_framework import serializers, viewsets

from labeling.api.prompts import MessageSerializer, visible_projects
from labeling.models import Demonstration


class DemonstrationSerializer(serializers.ModelSerializer[Demonstration]):
    messages = MessageSerializer(source="prompt.messages", many=True, read_only=True)
    author = serializers.CharField(source="author.username", read_only=True, default=None)

    class Meta:
        model = Demonstration
        fields = ["id", "prompt", "messages", "text", "origin", "author", "source", "created_at"]


class DemonstrationFilter(filters.FilterSet):
    project = filters.ModelChoiceFilter(field_name="prompt__project", queryset=visible_projects)
    origin = filters.ChoiceFilter(choices=Demonstration.Origin.choices)


class DemonstrationViewSet(viewsets.ReadOnlyModelViewSet[Demonstration]):
    """Answers that people wrote, or that came with an import and name their source."""

    serializer_class = DemonstrationSerializer
    filterset_class = DemonstrationFilter
    lookup_value_converter = "int"
    queryset = Demonstration.objects.none()

    def get_queryset(self) -> QuerySet[Demonstration]:
        return Demonstration.objects.visible_to(self.request.user).select_related("prompt", "author")
