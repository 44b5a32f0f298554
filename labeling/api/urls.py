"""Addresses under /api/ of what people said."""

from rest_framework.routers import SimpleRouter

from labeling.api.completion_sets import CompletionSetViewSet
from labeling.api.demonstrations import DemonstrationViewSet
from labeling.api.exports import ExportViewSet
from labeling.api.projects import ProjectViewSet
from labeling.api.prompts import PromptViewSet
from labeling.api.rankings import RankingViewSet
from labeling.api.tasks import TaskViewSet

router = SimpleRouter(use_regex_path=False)
router.register("projects", ProjectViewSet, "api-project")
router.register("prompts", PromptViewSet, "api-prompt")
router.register("completion-sets", CompletionSetViewSet, "api-completion-set")
router.register("tasks", TaskViewSet, "api-task")
router.register("rankings", RankingViewSet, "api-ranking")
router.register("demonstrations", DemonstrationViewSet, "api-demonstration")
router.register("exports", ExportViewSet, "api-export")

urlpatterns = router.urls
