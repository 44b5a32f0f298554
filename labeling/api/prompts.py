"""Prompts: read, add, approve, retire."""

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.api.permissions import CuratesOrReads, asker
from labeling.models import Project, Prompt


class MessageSerializer(serializers.Serializer[dict[str, str]]):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField()


class CuratedProject(serializers.PrimaryKeyRelatedField[Project]):
    """A project whose prompts the asker may change: one that is somebody else's looks like one that is not there."""

    def get_queryset(self) -> QuerySet[Project]:
        request = self.context.get("request")
        return Project.objects.curated_by(request.user) if request else Project.objects.none()


class PromptSerializer(serializers.ModelSerializer[Prompt]):
    project = CuratedProject()
    messages = MessageSerializer(many=True, allow_empty=False)
    tags = serializers.ListField(child=serializers.CharField(max_length=60), max_length=20, required=False)

    class Meta:
        model = Prompt
        fields = [
            "id",
            "project",
            "messages",
            "language",
            "source",
            "licence",
            "tags",
            "k",
            "state",
            "split",
            "family",
            "created_at",
        ]
        read_only_fields = ["state", "split", "family", "created_at"]


def visible_projects(request: Request | None) -> QuerySet[Project]:
    return Project.objects.visible_to(request.user) if request else Project.objects.none()


class PromptFilter(filters.FilterSet):
    project = filters.ModelChoiceFilter(queryset=visible_projects)
    state = filters.ChoiceFilter(choices=Prompt.State.choices)
    split = filters.ChoiceFilter(choices=Prompt.Split.choices)
    language = filters.CharFilter(max_length=8)
    source = filters.CharFilter(max_length=200)


class PromptViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet[Prompt]):
    """Prompts of the projects you curate; ops and admins read all."""

    serializer_class = PromptSerializer
    permission_classes = [CuratesOrReads]
    filterset_class = PromptFilter
    lookup_value_converter = "int"
    queryset = Prompt.objects.none()

    def get_queryset(self) -> QuerySet[Prompt]:
        user, is_read = self.request.user, self.request.method in SAFE_METHODS
        return Prompt.objects.visible_to(user) if is_read else Prompt.objects.curated_by(user)

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = Prompt.objects.add(**serializer.validated_data, author=self.request.user)

    @extend_schema(request=None, responses=PromptSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Open the prompt for labeling. 409 where it was approved or retired already."""
        prompt = self.get_object()
        if not prompt.approve(asker(request)):
            return Response({"detail": _("This prompt was approved or retired already.")}, status=409)
        return Response(self.get_serializer(prompt).data)

    @extend_schema(request=None, responses=PromptSerializer)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: str) -> Response:
        """Give the prompt to nobody any more. What was said about it stays."""
        prompt = self.get_object()
        prompt.retire()
        return Response(self.get_serializer(prompt).data)
