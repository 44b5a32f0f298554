"""What humans say: one entity a file."""

from labeling.models.answer import Answer, Judged, Revision
from labeling.models.comparing import ComparisonImport
from labeling.models.completion import Completion, CompletionSet, SampledCompletion, SamplingJob
from labeling.models.counting import TokenCount
from labeling.models.demonstration import Demonstration, DemonstrationRevision
from labeling.models.draft import Draft, DraftConflict
from labeling.models.exporting import Export
from labeling.models.importing import Import
from labeling.models.known_answer import KnownAnswer
from labeling.models.outlook import Outlook
from labeling.models.participation import Participation
from labeling.models.project import InstructionVersion, Project
from labeling.models.prompt import Prompt
from labeling.models.readiness import Readiness
from labeling.models.review import Review
from labeling.models.scoring import RewardModel, Score, ScoringJob
from labeling.models.skip import Skip
from labeling.models.slot import Slot, StaleAssignment
from labeling.models.translation import StaleTranslation, Translation
from labeling.models.user import Role, User
from labeling.models.webhook import Delivery, Webhook

__all__ = [
    "Answer",
    "ComparisonImport",
    "Completion",
    "CompletionSet",
    "Delivery",
    "Demonstration",
    "DemonstrationRevision",
    "Draft",
    "DraftConflict",
    "Export",
    "Import",
    "InstructionVersion",
    "Judged",
    "KnownAnswer",
    "Outlook",
    "Participation",
    "Project",
    "Prompt",
    "Readiness",
    "Review",
    "Revision",
    "RewardModel",
    "Role",
    "SampledCompletion",
    "SamplingJob",
    "Score",
    "ScoringJob",
    "Skip",
    "Slot",
    "StaleAssignment",
    "StaleTranslation",
    "TokenCount",
    "Translation",
    "User",
    "Webhook",
]
