"""Exports: ask for a file of labels, ask how far it is, fetch it."""

from django.db.models import QuerySet
from django.http import Http404
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from labeling.api.permissions import asker, sees_models
from labeling.api.prompts import visible_projects
from labeling.downloads import Download
from labeling.models import Export, Project
from labeling.models.exporting import CHOICES


class SeesLabels(BasePermission):
    """Curators, ops and admins."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return sees_models(request.user)


class FileRenderer(JSONRenderer):
    """Refusals to a program that says it accepts a file and nothing else."""

    media_type = "application/octet-stream"
    format = ""


class ExportedProject(serializers.PrimaryKeyRelatedField[Project]):
    """A project whose labels the asker may take out: another one looks like one that is not there."""

    def get_queryset(self) -> QuerySet[Project]:
        request = self.context.get("request")
        return Project.objects.exported_by(request.user) if request else Project.objects.none()


class ExportSerializer(serializers.ModelSerializer[Export]):
    project = ExportedProject()
    by = serializers.CharField(source="by.username", read_only=True)
    file = serializers.SerializerMethodField(help_text="Where to fetch it; null while, or once, there is none.")

    class Meta:
        model = Export
        fields = [
            "id",
            "project",
            *CHOICES,
            "state",
            "percent",
            "error",
            "by",
            "file",
            "rows",
            "bytes",
            "sha256",
            "expires_at",
            "created_at",
            "finished_at",
        ]
        read_only_fields = ["state", "error", "rows", "bytes", "sha256", "created_at", "finished_at"]

    def get_file(self, export: Export) -> str | None:
        if not export.file:
            return None
        return str(reverse("api-export-file", args=[export.pk], request=self.context.get("request")))


class ExportFilter(filters.FilterSet):
    project = filters.ModelChoiceFilter(queryset=visible_projects)
    state = filters.ChoiceFilter(choices=Export.State.choices)


class ExportViewSet(mixins.CreateModelMixin, mixins.DestroyModelMixin, viewsets.ReadOnlyModelViewSet[Export]):
    """Files of labels in the shapes that other programs read. A file is deleted after a week."""

    serializer_class = ExportSerializer
    permission_classes = [SeesLabels]
    filterset_class = ExportFilter
    lookup_value_converter = "int"
    queryset = Export.objects.none()

    def get_queryset(self) -> QuerySet[Export]:
        return Export.objects.visible_to(self.request.user).select_related("by", "project")

    def perform_create(self, serializer: serializers.BaseSerializer[Export]) -> None:
        serializer.instance = Export.objects.start(by=asker(self.request), **serializer.validated_data)

    def perform_destroy(self, export: Export) -> None:
        """The row and its file; the labels stay. One that is being written is stopped."""
        export.discard()

    @extend_schema(request=None, responses=ExportSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Stop writing. 409 where it had ended."""
        export = self.get_object()
        if not export.request_cancel():
            return Response({"detail": _("This export has ended already.")}, status=409)
        export.refresh_from_db()
        return Response(self.get_serializer(export).data)

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    @action(detail=True, filterset_class=None, pagination_class=None, renderer_classes=[JSONRenderer, FileRenderer])
    def file(self, request: Request, pk: str) -> Download:
        """The file. 404 while, or once, there is none."""
        export = self.get_object()
        try:
            file = export.file.open("rb")
        except (ValueError, FileNotFoundError) as error:
            raise Http404 from error
        return Download(file, as_attachment=True, filename=export.download_name, content_type=export.content_type)
