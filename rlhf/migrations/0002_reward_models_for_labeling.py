from django.db import migrations


def tell_labeling(apps, schema_editor):
    """Reward models that were trained before labeling kept them."""
    known = apps.get_model("labeling", "RewardModel").objects
    runs = apps.get_model("rlhf", "TrainingRun").objects.filter(stage="reward", state="succeeded", result__isnull=False)
    for run in runs.select_related("result", "snapshot", "policy").order_by("pk"):
        languages = run.policy.languages
        counted = {
            split: sum(
                int(run.snapshot.counts.get(split, {}).get(name, 0))
                for name in ([f"rankings:{language}" for language in languages] or ["rankings"])
            )
            for split in ("train", "heldout")
        }
        facts = {
            "project_id": run.project_id,
            "languages": languages,
            "in_use": run.result.archived_at is None,
            "train_rankings": counted["train"],
            "heldout_rankings": counted["heldout"],
            "heldout_accuracy": run.result.metrics.get("heldout_accuracy"),
        }
        known.get_or_create(name=run.result.name, defaults=facts)


class Migration(migrations.Migration):

    dependencies = [
        ("rlhf", "0001_initial"),
        ("labeling", "0009_readiness"),
    ]

    operations = [migrations.RunPython(tell_labeling, migrations.RunPython.noop)]
