"""Projects, read only: they are set up in the browser."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers, viewsets

from labeling.api.permissions import sees_models
from labeling.models import InstructionVersion, Project


class InstructionsSerializer(serializers.ModelSerializer[InstructionVersion]):
    class Meta:
        model = InstructionVersion
        fields = ["number", "bodies"]


class ProjectSerializer(serializers.ModelSerializer[Project]):
    instructions = InstructionsSerializer(read_only=True, allow_null=True)

    class Meta:
        model = Project
        fields = [
            "id",
            "name",
            "slug",
            "languages",
            "comparison",
            "k",
            "ranking_overlap",
            "demonstration_overlap",
            "require_ratings",
            "use_flags",
            "instructions",
            "policy_name",
            "policy_languages",
        ]

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        request = self.context.get("request")
        if request and request.user.is_authenticated and not sees_models(request.user):
            del fields["policy_name"], fields["policy_languages"]
        return fields


class ProjectViewSet(viewsets.ReadOnlyModelViewSet[Project]):
    """Projects you are a member of; ops and admins see all. Labelers are not told the policy."""

    serializer_class = ProjectSerializer
    lookup_value_converter = "int"
    queryset = Project.objects.none()

    def get_queryset(self) -> QuerySet[Project]:
        return Project.objects.visible_to(self.request.user)
