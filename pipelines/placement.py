"""What a step asks of a cluster, put on its task: the compiled pipeline says it, kfp.local ignores it."""

from kfp import dsl, kubernetes

from tidewheel.contracts.placement import GPU, POOL_LABEL, StepPlacement

SETTINGS = "tidewheel"  # ConfigMap of the namespace (docs/operations/manifests.md)
REQUIRED = ("TIDEWHEEL_STORE", "MLFLOW_TRACKING_URI")  # without them a step would keep what it makes on its pod's own disk
OPTIONAL = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
SECRETS = {
    "tidewheel-store": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "tidewheel-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
}
FIELDS = {"TIDEWHEEL_NAMESPACE": "metadata.namespace", "TIDEWHEEL_RECIPE": "metadata.labels['tidewheel/recipe']"}  # of the pod
BACKOFF = "30s"


def place(task: dsl.PipelineTask, step: str, recipe: str, asked: StepPlacement) -> None:
    """Ask for what a step needs: resources, nodes, queue, time, settings, labels."""
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
        task.set_retry(asked.retries, backoff_duration=BACKOFF)
    for label, value in labels_of(step, recipe, asked).items():
        kubernetes.add_pod_label(task, label, value)
    _set_environment(task)


def labels_of(step: str, recipe: str, asked: StepPlacement) -> dict[str, str]:
    """Labels of a step's pod; Kueue's where it waits in a queue."""
    found = {"app.kubernetes.io/part-of": "tidewheel", "tidewheel/step": step, "tidewheel/recipe": recipe}
    if asked.queue:
        found["kueue.x-k8s.io/queue-name"] = asked.queue
    if asked.priority:
        found["kueue.x-k8s.io/priority-class"] = asked.priority
    return found


def _set_environment(task: dsl.PipelineTask) -> None:
    kubernetes.use_config_map_as_env(task, SETTINGS, {name: name for name in REQUIRED})
    kubernetes.use_config_map_as_env(task, SETTINGS, {name: name for name in OPTIONAL}, optional=True)
    for name, path in FIELDS.items():
        kubernetes.use_field_path_as_env(task, env_name=name, field_path=path)
    for secret, names in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {name: name for name in names}, optional=True)
