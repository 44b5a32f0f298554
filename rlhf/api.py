"""Snapshots, training runs and models as a REST API, for ops and admins. Every view calls one domain method."""

from collections import defaultdict
from typing import Any

from django.db.models import QuerySet
from django.urls import register_converter
from django.urls.converters import StringConverter
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView

from rlhf.models import DatasetSnapshot, ModelVersion, Promotion, TrainingRun


class VersionName(StringConverter):
    """In an address, what may be a name at all: a database is asked for nothing else."""

    regex = r"[a-z0-9][a-z0-9._-]{0,119}"


register_converter(VersionName, "version_name")


class IsOps(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(request.user.is_authenticated and request.user.has_role("ops", "admin"))


KEY_HELP = "Made by you: the same request sent twice is carried out once."


class SnapshotSerializer(serializers.ModelSerializer[DatasetSnapshot]):
    key = serializers.UUIDField(write_only=True, required=False, help_text=KEY_HELP)

    class Meta:
        model = DatasetSnapshot
        fields = ["id", "project", "hash", "counts", "created_at", "key"]
        read_only_fields = ["hash", "counts", "created_at"]


class SnapshotViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet[DatasetSnapshot]):
    """What a project held at one moment, frozen as files that nobody changes again."""

    serializer_class = SnapshotSerializer
    permission_classes = [IsOps]
    filterset_fields = ["project"]
    lookup_value_converter = "int"
    queryset = DatasetSnapshot.objects.none()

    def get_queryset(self) -> QuerySet[DatasetSnapshot]:
        return DatasetSnapshot.objects.visible_to(self.request.user)

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = DatasetSnapshot.objects.freeze(**serializer.validated_data, by=self.request.user)


class RunSerializer(serializers.ModelSerializer[TrainingRun]):
    key = serializers.UUIDField(write_only=True, required=False, help_text=KEY_HELP)
    params = serializers.DictField(required=False, help_text="Overrides of the stage's parameters.")
    result = serializers.SlugRelatedField[ModelVersion](slug_field="name", read_only=True)

    class Meta:
        model = TrainingRun
        fields = [
            "id",
            "project",
            "stage",
            "snapshot",
            "policy",
            "reward_model",
            "params",
            "state",
            "progress",
            "error",
            "attempts",
            "after",
            "result",
            "created_at",
            "started_at",
            "finished_at",
            "key",
        ]
        read_only_fields = [
            "state",
            "progress",
            "error",
            "attempts",
            "after",
            "created_at",
            "started_at",
            "finished_at",
        ]


class RetrainSerializer(serializers.ModelSerializer[TrainingRun]):
    reward_params = serializers.DictField(required=False)
    ppo_params = serializers.DictField(required=False)
    key = serializers.UUIDField(required=False, help_text=KEY_HELP)

    class Meta:
        model = TrainingRun
        fields = ["project", "policy", "reward_params", "ppo_params", "key"]


class MetricsSerializer(serializers.Serializer[Any]):
    metrics = serializers.DictField(
        child=serializers.ListField(child=serializers.ListField(child=serializers.FloatField())),
        help_text="name -> [[step, value], ...]",
    )


class RunFilter(filters.FilterSet):
    state = filters.ChoiceFilter(choices=TrainingRun.State.choices)

    class Meta:
        model = TrainingRun
        fields = ["project", "stage", "state"]


class RunViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet[TrainingRun]):
    """Training runs: supervised fine-tuning, reward models, PPO, DPO."""

    serializer_class = RunSerializer
    permission_classes = [IsOps]
    filterset_class = RunFilter
    lookup_value_converter = "int"
    queryset = TrainingRun.objects.none()

    def get_queryset(self) -> QuerySet[TrainingRun]:
        return TrainingRun.objects.visible_to(self.request.user).select_related("result")

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = TrainingRun.objects.start(**serializer.validated_data, by=self.request.user)

    @extend_schema(request=RetrainSerializer, responses={201: RunSerializer(many=True)})
    @action(detail=False, methods=["post"], filterset_class=None, pagination_class=None)
    def retrain(self, request: Request) -> Response:
        """Freeze a snapshot, train a reward model on it, then improve the policy by PPO."""
        given = RetrainSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        chosen = dict(given.validated_data)
        runs = TrainingRun.objects.retrain(chosen.pop("project"), request.user, **chosen)
        return Response(self.get_serializer(runs, many=True).data, status=201)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Stop the run, and those that wait for it. 409 where it had ended."""
        run = self.get_object()
        if not run.request_cancel():
            return Response({"detail": _("This run has ended already.")}, status=409)
        return self._fresh(run)

    @extend_schema(request=None, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Go on from the last checkpoint. 409 unless the run failed or was cancelled."""
        run = self.get_object()
        if not run.requeue():
            return Response({"detail": _("Only a failed or cancelled run can be resumed.")}, status=409)
        return self._fresh(run)

    @extend_schema(parameters=[OpenApiParameter("since", int, description="steps after this one")])
    @extend_schema(responses=MetricsSerializer)
    @action(detail=True, filterset_class=None, pagination_class=None)
    def metrics(self, request: Request, pk: str) -> Response:
        """The run's curves."""
        since = serializers.IntegerField(min_value=0, max_value=2**31 - 1).run_validation(
            request.query_params.get("since", 0)
        )
        curves: dict[str, list[list[float]]] = defaultdict(list)
        for name, step, value in self.get_object().metrics.filter(step__gt=since).values_list("name", "step", "value"):
            curves[name].append([step, value])
        return Response({"metrics": curves})

    def _fresh(self, run: TrainingRun) -> Response:
        run.refresh_from_db()
        return Response(self.get_serializer(run).data)


class ModelSerializer(serializers.ModelSerializer[ModelVersion]):
    parents = serializers.SlugRelatedField[ModelVersion](slug_field="name", many=True, read_only=True)

    class Meta:
        model = ModelVersion
        fields = [
            "id",
            "name",
            "kind",
            "languages",
            "parents",
            "manifest_hash",
            "snapshot_hash",
            "params",
            "metrics",
            "archived_at",
            "created_at",
        ]


class PromotionSerializer(serializers.ModelSerializer[Promotion]):
    version = serializers.SlugRelatedField[ModelVersion](slug_field="name", read_only=True)
    by = serializers.SlugRelatedField[Any](slug_field="username", read_only=True)

    class Meta:
        model = Promotion
        fields = ["id", "project", "version", "by", "reason", "is_rollback", "created_at"]
        read_only_fields = ["is_rollback", "created_at"]


class RollBackSerializer(serializers.ModelSerializer[Promotion]):
    class Meta:
        model = Promotion
        fields = ["project"]


class ModelViewSet(viewsets.ReadOnlyModelViewSet[ModelVersion]):
    """The registry. Versions are archived, never deleted or renamed."""

    serializer_class = ModelSerializer
    permission_classes = [IsOps]
    filterset_fields = ["kind"]
    lookup_field = "name"
    lookup_value_converter = "version_name"
    queryset = ModelVersion.objects.none()

    def get_queryset(self) -> QuerySet[ModelVersion]:
        return ModelVersion.objects.visible_to(self.request.user).prefetch_related("parents")

    @extend_schema(request=PromotionSerializer, responses={201: PromotionSerializer})
    @action(detail=True, methods=["post"])
    def promote(self, request: Request, name: str) -> Response:
        """Make this version the policy that a project samples from."""
        version, given = self.get_object(), PromotionSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        promotion = Promotion.objects.promote(version=version, by=request.user, **given.validated_data)
        return Response(PromotionSerializer(promotion).data, status=201)

    @extend_schema(request=None, responses=ModelSerializer)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, name: str) -> Response:
        """Offer this version for nothing new. Refused while a project samples from it."""
        version = self.get_object()
        version.archive()
        return Response(self.get_serializer(version).data)


class PromotionViewSet(viewsets.ReadOnlyModelViewSet[Promotion]):
    """Which policy each project sampled from, when, and who decided it."""

    serializer_class = PromotionSerializer
    permission_classes = [IsOps]
    filterset_fields = ["project"]
    lookup_value_converter = "int"
    queryset = Promotion.objects.none()

    def get_queryset(self) -> QuerySet[Promotion]:
        return Promotion.objects.visible_to(self.request.user).select_related("version", "by")

    @extend_schema(request=RollBackSerializer, responses={201: PromotionSerializer})
    @action(detail=False, methods=["post"])
    def roll_back(self, request: Request) -> Response:
        """Promote what the project sampled from before."""
        given = RollBackSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        promotion = Promotion.objects.roll_back(given.validated_data["project"], request.user)
        return Response(PromotionSerializer(promotion).data, status=201)


router = SimpleRouter(use_regex_path=False)
router.register("snapshots", SnapshotViewSet, "api-snapshot")
router.register("runs", RunViewSet, "api-run")
router.register("models", ModelViewSet, "api-model")
router.register("promotions", PromotionViewSet, "api-promotion")
urlpatterns = router.urls
