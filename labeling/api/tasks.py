"""Tasks: get the next piece of work, keep drafts, hand it in or pass it on. Models stay hidden."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from labeling.api.demonstrations import DemonstrationSerializer
from labeling.api.permissions import IsLabeler, asker
from labeling.api.prompts import MessageSerializer
from labeling.api.rankings import JudgedCompletionSerializer, RankingSerializer
from labeling.models import Answer, Demonstration, Draft, Project, Slot
from labeling.models.demonstration import MAX_DEMONSTRATION_CHARACTERS
from labeling.models.project import MAX_K
from labeling.rankings import FLAGS, LIKERT, MAX_NOTE_CHARACTERS, STRENGTHS, Verdict


@extend_schema_field(int)
class LabeledProject(serializers.PrimaryKeyRelatedField[Project]):
    """A project in which the asker is given tasks."""

    def get_queryset(self) -> QuerySet[Project]:
        request = self.context.get("request")
        return Project.objects.labeled_by(request.user) if request else Project.objects.none()


class NextTaskSerializer(serializers.Serializer[Any]):
    project = LabeledProject()
    task_type = serializers.ChoiceField(choices=Slot.TaskType.choices, required=False)


class DraftSerializer(serializers.ModelSerializer[Draft]):
    payload = serializers.DictField(help_text="Whatever you need to go on later, as a JSON object.")
    version = serializers.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        required=False,
        help_text="The version your work stands on, 0 for none; without it, what is there is overwritten.",
    )

    class Meta:
        model = Draft
        fields = ["payload", "version", "saved_at"]
        read_only_fields = ["saved_at"]


class TaskSerializer(serializers.ModelSerializer[Slot]):
    messages = MessageSerializer(source="prompt.messages", many=True, read_only=True)
    language = serializers.CharField(source="prompt.language", read_only=True)
    require_ratings = serializers.BooleanField(source="project.require_ratings", read_only=True)
    completions = serializers.SerializerMethodField()
    draft = DraftSerializer(read_only=True, allow_null=True)

    class Meta:
        model = Slot
        fields = [
            "id",
            "project",
            "task_type",
            "state",
            "lease_until",
            "messages",
            "language",
            "instruction_version",
            "require_ratings",
            "completions",
            "draft",
        ]

    @extend_schema_field(JudgedCompletionSerializer(many=True))
    def get_completions(self, slot: Slot) -> list[dict[str, Any]]:
        """In the order this labeler is to see them."""
        if slot.completion_set is None:
            return []
        return list(JudgedCompletionSerializer(slot.shown_completions, many=True).data)


class RatingSerializer(serializers.Serializer[Any]):
    overall = serializers.IntegerField(min_value=min(LIKERT), max_value=max(LIKERT), allow_null=True, required=False)
    flags = serializers.ListField(child=serializers.ChoiceField(choices=list(FLAGS)), required=False)
    note = serializers.CharField(max_length=MAX_NOTE_CHARACTERS, allow_blank=True, required=False)


class SubmissionSerializer(serializers.Serializer[Any]):
    key = serializers.UUIDField(help_text="Made by you: the same submission sent twice is stored once.")
    active_seconds = serializers.FloatField(min_value=0, max_value=86_400, default=0.0)
    instruction_version = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, required=False, help_text="The version that stood in the task."
    )


class RankingSubmissionSerializer(SubmissionSerializer):
    verdict = serializers.ChoiceField(
        choices=Verdict.choices, default=Verdict.RANKED, help_text="Only a ranking needs tiers and ratings."
    )
    tiers = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MAX_K),
        max_length=MAX_K,
        required=False,
        help_text="tiers[i] is the tier of the completion with index i; 1 is best, equal numbers are tied. Completions "
        "with the same text belong in the same tier.",
    )
    strength = serializers.IntegerField(
        min_value=0,
        max_value=len(STRENGTHS) - 1,
        allow_null=True,
        required=False,
        help_text="Of two completions only, and needed there: how much better the one in tier 1 is. 1 slightly better, "
        "2 better, 3 much better; 0 for a tie.",
    )
    ratings = serializers.ListField(child=RatingSerializer(allow_null=True), max_length=MAX_K, required=False)
    note = serializers.CharField(max_length=MAX_NOTE_CHARACTERS, allow_blank=True, required=False)


class DemonstrationSubmissionSerializer(SubmissionSerializer):
    text = serializers.CharField(max_length=MAX_DEMONSTRATION_CHARACTERS)


class SkipSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500, allow_blank=True, default="")


STALE = OpenApiResponse(description="The task is no longer yours. Ask for the next one.")


class TaskViewSet(mixins.RetrieveModelMixin, viewsets.GenericViewSet[Slot]):
    """A task is leased to you for fifteen minutes; drafts renew the lease. Only labelers are given tasks."""

    serializer_class = TaskSerializer
    permission_classes = [IsLabeler]
    lookup_value_converter = "int"
    queryset = Slot.objects.none()

    def get_queryset(self) -> QuerySet[Slot]:
        """One's own tasks, answered ones too, so that the same submission sent twice finds its answer."""
        mine: QuerySet[Slot] = Slot.objects.filter(
            project__in=Project.objects.labeled_by(self.request.user), labeler=self.request.user
        )
        return mine.select_related("project", "prompt", "completion_set")

    @extend_schema(request=NextTaskSerializer, responses={200: TaskSerializer, 204: None})
    @action(detail=False, methods=["post"])
    def next(self, request: Request) -> Response:
        """Lease the next task of a project, or get the one you hold. 204 where nothing is left for you."""
        wanted = NextTaskSerializer(data=request.data, context=self.get_serializer_context())
        wanted.is_valid(raise_exception=True)
        task_type = wanted.validated_data.get("task_type")
        slot = Slot.objects.claim_next(wanted.validated_data["project"], asker(request), task_type)
        return Response(self.get_serializer(slot).data) if slot else Response(status=204)

    @extend_schema(request=DraftSerializer, responses={200: DraftSerializer, 409: STALE})
    @action(detail=True, methods=["post"])
    def draft(self, request: Request, pk: str) -> Response:
        """Keep unfinished work and renew the lease. 409 too where something newer than your version is there."""
        draft = self.get_object().save_draft(asker(request), **self._checked(DraftSerializer))
        return Response(DraftSerializer(draft).data)

    @extend_schema(request=SkipSerializer, responses={204: None, 409: STALE})
    @action(detail=True, methods=["post"])
    def skip(self, request: Request, pk: str) -> Response:
        """Hand the task back; it is not offered to you again."""
        self.get_object().skip(asker(request), self._checked(SkipSerializer)["reason"])
        return Response(status=204)

    @extend_schema(request=None, responses={200: TaskSerializer, 409: STALE})
    @action(detail=True, methods=["post"])
    def take_back(self, request: Request, pk: str) -> Response:
        """Within half a minute, make what you handed in a draft again."""
        slot = self.get_object()
        slot.take_back(asker(request))
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=RankingSubmissionSerializer, responses={201: RankingSerializer, 409: STALE})
    @action(detail=True, methods=["post"])
    def ranking(self, request: Request, pk: str) -> Response:
        """Hand in a ranking."""
        slot, given = self.get_object(), self._checked(RankingSubmissionSerializer)
        answer = Answer.objects.submit(slot, asker(request), given, given.pop("key"))
        return Response(RankingSerializer(answer, context=self.get_serializer_context()).data, status=201)

    @extend_schema(request=DemonstrationSubmissionSerializer, responses={201: DemonstrationSerializer, 409: STALE})
    @action(detail=True, methods=["post"])
    def demonstration(self, request: Request, pk: str) -> Response:
        """Hand in a demonstration."""
        slot, given = self.get_object(), self._checked(DemonstrationSubmissionSerializer)
        demonstration = Demonstration.objects.submit(slot, asker(request), given, given.pop("key"))
        return Response(DemonstrationSerializer(demonstration).data, status=201)

    def _checked(self, kind: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        given = kind(data=self.request.data)
        given.is_valid(raise_exception=True)
        return dict(given.validated_data)
