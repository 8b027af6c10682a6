"""What a step asks of a cluster, put on its task: the compiled pipeline says it, kfp.local ignores it."""

from kfp import dsl, kubernetes

from tidewheel.contracts import labels
from tidewheel.contracts.base import canonical_json
from tidewheel.contracts.placement import (
    BACKOFF_SECONDS,
    GPU,
    HOME_MOUNT,
    MOUNTED,
    PLACED_VARIABLE,
    POD_VARIABLE,
    POOL_LABEL,
    SECRETS,
    SETTINGS,
    WITH_EXECUTORS,
    Placed,
    Placement,
    StepPlacement,
)

# Fields of the pod itself, by the variable that a step reads.
FIELDS = {
    POD_VARIABLE: "metadata.name",
    "TIDEWHEEL_NAMESPACE": "metadata.namespace",
    "TIDEWHEEL_RECIPE": "metadata.labels['tidewheel/recipe']",
}


def place(task: dsl.PipelineTask, step: str, recipe: str, placement: Placement) -> None:
    """Ask for what a step needs: resources, nodes, queue, time, volume, settings, labels."""
    asked: StepPlacement = getattr(placement, step)
    task.set_cpu_request(asked.cpu).set_memory_request(asked.memory).set_memory_limit(asked.memory)
    if asked.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(asked.gpus)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    for one in asked.tolerations:
        kubernetes.add_toleration(task, key=one.key, operator=one.operator, value=one.value or None, effect=one.effect or None)
    if asked.pool:
        kubernetes.add_node_selector(task, POOL_LABEL, asked.pool)
    if asked.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=asked.shm)
    kubernetes.set_timeout(task, asked.timeout_seconds)
    if asked.retries:
        task.set_retry(asked.retries, backoff_duration=f"{BACKOFF_SECONDS}s")
    for label, value in labels_of(step, recipe, asked).items():
        kubernetes.add_pod_label(task, label, value)
    if placement.volume:
        kubernetes.mount_pvc(task, placement.volume, HOME_MOUNT)
        task.set_env_variable("TIDEWHEEL_HOME", HOME_MOUNT)
    task.set_env_variable(PLACED_VARIABLE, canonical_json(placed(step, placement).model_dump(mode="json")))
    _set_environment(task)


def placed(step: str, placement: Placement) -> Placed:
    """What a step is told of it: the pods that it starts are its own business."""
    return Placed(
        step=getattr(placement, step),
        workers=placement.workers if step == "train" else None,
        executors=placement.executors if step in WITH_EXECUTORS else None,
    )


def labels_of(step: str, recipe: str, asked: StepPlacement) -> dict[str, str]:
    """Labels of a step's pod; Kueue's where it waits in a queue."""
    return labels.OURS | {labels.STEP: step, labels.RECIPE: recipe} | asked.queue_labels


def _set_environment(task: dsl.PipelineTask) -> None:
    """Settings are files, each named as the variable that it is: the backend 2.14 has no variable that may be absent."""
    kubernetes.use_config_map_as_volume(task, SETTINGS, f"{MOUNTED}/{SETTINGS}")
    for secret in SECRETS:
        kubernetes.use_secret_as_volume(task, secret, f"{MOUNTED}/{secret}", optional=True)
    for name, path in FIELDS.items():
        kubernetes.use_field_path_as_env(task, env_name=name, field_path=path)
