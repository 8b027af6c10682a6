"""What `doctor` says of the place where a recipe's production is served."""

from __future__ import annotations

from tidewheel.cli.project import Check, guarded
from tidewheel.contracts.recipe import Recipe
from tidewheel.contracts.target import ArgoTarget, EmbeddedTarget
from tidewheel.rollout.workload import Workload
from tidewheel.steps.served import expect_steps


def checks(recipe: Recipe) -> list[Check]:
    """Whether the workload is there, may be changed and has the recipe's steps; nothing where servers follow the store."""
    target = recipe.deploy.target
    if isinstance(target, EmbeddedTarget):
        return []

    def standing() -> Check:
        workload = Workload(target)
        now = workload.standing()
        aborted = "" if not now.is_aborted else "look into it, then tidewheel reconcile"
        serves = f"its template names {now.bundle[:12]}, " if now.bundle else ""
        return Check(name="target", is_well=not aborted, found=f"{workload.where}: {serves}{now.words}", remedy=aborted)

    def rights() -> Check:
        missing = Workload(target).missing_rights()
        remedy = "name this account in deployer.serviceAccounts of the chart ranker-serving"
        found = f"may not {', '.join(missing)}" if missing else "may do what deploy and rollback do"
        return Check(name="rights", is_well=not missing, found=found, remedy=remedy if missing else "")

    def steps() -> Check:
        workload = Workload(target)
        expect_steps(workload, workload.standing().shares, recipe.deploy.steps)
        return Check(name="steps", is_well=True, found="the recipe's")

    found = [guarded("target", standing)]
    if found[0].is_well:
        found.append(guarded("rights", rights))
        found += [guarded("steps", steps)] if isinstance(target, ArgoTarget) else []
    return found
