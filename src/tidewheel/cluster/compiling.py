"""A file's schedules, compiled into what a backend is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pipelines.compile import compiled
from tidewheel.cluster.schedules import Wanted
from tidewheel.contracts.recipe import Recipe, WindowConfig
from tidewheel.contracts.schedules import Schedules

SCHEDULED_AT = "sprig.int64(workflow.labels.scheduledworkflows.kubeflow['org/workflowEpoch'])"
DAY_SECONDS = 86_400


def window_end(window: WindowConfig) -> str:
    """What stands for the end of a scheduled run's window: the last step of the recipe's windows at its scheduled time.

    The backend's own macros ([[ScheduledTime]], {{$.scheduledTime}}) are left as they are in pipelines of version 2
    (kubeflow/pipelines#12494). Argo Workflows, which runs them, puts in the scheduled time, which every such workflow
    carries as a label, in seconds since 1970.
    """
    first, step = int(window.first_end.timestamp()), window.stride_days * DAY_SECONDS
    moment = f"{SCHEDULED_AT} - ({SCHEDULED_AT} - {first}) % {step}"
    return f"{{{{=sprig.dateInZone('2006-01-02T15:04:05Z', {moment}, 'UTC')}}}}"


def wanted_of(schedules: Schedules, recipe_of: Callable[[str], Recipe]) -> list[Wanted]:
    """Every schedule of the file with its compiled recipe; each recipe is read and compiled once.

    Args:
        schedules: the file.
        recipe_of: reads the recipe that a schedule names.
    """
    recipes: dict[str, tuple[Recipe, bytes]] = {}
    wanted = []
    for each in schedules.schedules:
        if each.recipe not in recipes:
            read = recipe_of(each.recipe)
            recipes[each.recipe] = (read, compiled(read))
        recipe, pipeline = recipes[each.recipe]
        wanted.append(
            Wanted(
                group=schedules.group,
                name=each.name,
                recipe=recipe.name,
                pipeline=pipeline,
                pipeline_digest=hashlib.sha256(pipeline).hexdigest(),
                cron=each.sent_cron,
                parameters={"window_end": window_end(recipe.window), "reason": each.reason, "dry_run": False},
                service_account=schedules.service_account,
                is_enabled=each.enabled,
            )
        )
    return wanted
