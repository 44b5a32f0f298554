"""Addresses of the labeling pages."""

from django.urls import URLPattern, path

from labeling.views import (
    answers,
    desk,
    imports,
    instructions,
    keys,
    projects,
    prompts,
    reviews,
    task,
    translations,
)

urlpatterns: list[URLPattern] = [
    # For labelers
    path("desk/", desk.desk, name="desk"),
    path("desk/<slug:slug>/", desk.desk_project, name="desk_project"),
    path("desk/<slug:slug>/next/", desk.next_task, name="next_task"),
    path("instructions/<slug:slug>/", desk.instructions, name="instructions"),
    path("instructions/<slug:slug>/<int:number>/", desk.instructions, name="instructions_version"),
    path("task/<int:pk>/", task.task, name="task"),
    path("task/<int:pk>/draft/", task.task_draft, name="task_draft"),
    path("task/<int:pk>/submit/", task.task_submit, name="task_submit"),
    path("task/<int:pk>/skip/", task.task_skip, name="task_skip"),
    path("task/<int:pk>/undo/", task.task_undo, name="task_undo"),
    path("keys/", keys.keys, name="keys"),
    path("answers/", answers.answer_list, name="answer_list"),
    path("answers/<int:pk>/", answers.answer, name="answer"),
    path("demonstrations/<int:pk>/", answers.demonstration, name="demonstration"),
    path("answers/<int:pk>/change/", answers.answer_change, name="answer_change"),
    path("answers/<int:pk>/amend/", answers.answer_amend, name="answer_amend"),
    path("demonstrations/<int:pk>/change/", answers.demonstration_change, name="demonstration_change"),
    path("demonstrations/<int:pk>/amend/", answers.demonstration_amend, name="demonstration_amend"),
    # For curators
    path("projects/", projects.project_list, name="project_list"),
    path("projects/new/", projects.project_new, name="project_new"),
    path("projects/<slug:slug>/", projects.project, name="project"),
    path("projects/<slug:slug>/sampling/", projects.sampling, name="sampling"),
    path("projects/<slug:slug>/settings/", projects.project_settings, name="project_settings"),
    path("projects/<slug:slug>/instructions/", instructions.instructions_edit, name="instructions_edit"),
    path(
        "projects/<slug:slug>/instructions/<int:number>/", instructions.instruction_version, name="instruction_version"
    ),
    path("projects/<slug:slug>/prompts/", prompts.prompt_list, name="prompt_list"),
    path("projects/<slug:slug>/prompts/change/", prompts.prompts_change, name="prompts_change"),
    path("projects/<slug:slug>/prompts/new/", prompts.prompt_new, name="prompt_new"),
    path("prompts/<int:pk>/", prompts.prompt, name="prompt"),
    path("prompts/<int:pk>/sets/", prompts.prompt_sets, name="prompt_sets"),
    path("prompts/<int:pk>/edit/", prompts.prompt_edit, name="prompt_edit"),
    path("prompts/<int:pk>/approve/", prompts.prompt_approve, name="prompt_approve"),
    path("prompts/<int:pk>/retire/", prompts.prompt_retire, name="prompt_retire"),
    path("prompts/<int:pk>/restore/", prompts.prompt_restore, name="prompt_restore"),
    path("prompts/<int:pk>/sample/", prompts.prompt_sample, name="prompt_sample"),
    path("prompts/<int:pk>/k/", prompts.prompt_k, name="prompt_k"),
    path("prompts/<int:pk>/translate/<slug:language>/", translations.translation, name="translation"),
    path("prompts/<int:pk>/translate/<slug:language>/draft/", translations.translation_draft, name="translation_draft"),
    path("projects/<slug:slug>/review/", reviews.review_list, name="review_list"),
    path("reviews/<int:pk>/", reviews.review_add, name="review_add"),
    path("projects/<slug:slug>/imports/", imports.import_list, name="import_list"),
    path("imports/<int:pk>/", imports.import_page, name="import_page"),
    path("imports/<int:pk>/mapping/", imports.import_mapping, name="import_mapping"),
    path("imports/<int:pk>/encoding/", imports.import_encoding, name="import_encoding"),
    path("imports/<int:pk>/take/", imports.import_take, name="import_take"),
    path("imports/<int:pk>/discard/", imports.import_discard, name="import_discard"),
]
