"""What a Spark in client mode is told so that its executors are pods of a step: settings and a template, from values alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidewheel.contracts.placement import Executors, StepPlacement, bytes_of
from tidewheel.errors import ConfigError
from tidewheel.pods.own import OwnPod, child_template

CONTAINER = "executor"
LAUNCH = ("python", "-m", "tidewheel.pods.executor")
# Beside labels_of: Spark's own label finds executors of any application, this one those of ours.
COMPONENT = {"app.kubernetes.io/name": "spark-executor", "app.kubernetes.io/component": "executor"}
DRIVER_PORT, BLOCKS_PORT = 7078, 7079
MIN_OVERHEAD = 384 * 2**20  # what Spark leaves a Java process beside its heap at least
OVERHEAD_SHARE = 0.2
MIN_HEAP = 512 * 2**20  # Spark refuses less than 450 MiB
MIB = 2**20


def template_of(pod: OwnPod, asked: Executors, step: StepPlacement, labels: Mapping[str, str]) -> dict[str, Any]:
    """An executor's pod, which Spark puts names, settings and the argument `executor` into.

    It waits in the queue of its step, since it takes from the same quota, and ends when the step must have ended. The step's
    pod owns it without being its controller, as Spark itself would have it: Kueue lets in, uncounted, whatever has a
    controller that it knows already.
    """
    found = child_template(pod, asked, dict(labels) | COMPONENT | step.queue_labels, CONTAINER, {})
    spec = found["spec"] | {"activeDeadlineSeconds": step.timeout_seconds}
    # What an executor says last, when it fails, is then in its status.
    spec["containers"] = [
        spec["containers"][0] | {"command": list(LAUNCH), "terminationMessagePolicy": "FallbackToLogsOnError"}
    ]
    metadata = found["metadata"] | {"ownerReferences": [pod.owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def settings_of(pod: OwnPod, asked: Executors, step: StepPlacement, server: str, template: Path) -> dict[str, str]:
    """Settings of the driver in this pod.

    Args:
        server: `https://…`, where the API server is.
        template: the file that `template_of` was written to.

    Raises:
        ConfigError: an executor has less memory than Spark starts in, or this pod has no address yet.
    """
    heap, overhead = memory_of(asked.memory)
    address = pod.manifest.get("status", {}).get("podIP", "")
    if not address:
        raise ConfigError(f"pod {pod.name}: it has no address (status.podIP) that Spark's executors could call")
    return {
        "spark.master": f"k8s://{server}",
        "spark.submit.deployMode": "client",
        "spark.kubernetes.namespace": pod.namespace,
        "spark.driver.host": f"[{address}]" if ":" in address else address,
        "spark.driver.bindAddress": address,
        "spark.driver.port": str(DRIVER_PORT),
        "spark.driver.blockManager.port": str(BLOCKS_PORT),
        "spark.blockManager.port": str(BLOCKS_PORT),
        "spark.driver.memory": f"{max(bytes_of(step.memory) // 2 // MIB, MIN_HEAP // MIB)}m",  # beside Python
        "spark.kubernetes.container.image": pod.container["image"],
        "spark.kubernetes.container.image.pullPolicy": pod.container.get("imagePullPolicy", "IfNotPresent"),
        "spark.kubernetes.executor.podTemplateFile": str(template),
        "spark.kubernetes.executor.podTemplateContainerName": CONTAINER,
        "spark.kubernetes.executor.request.cores": asked.cpu,
        "spark.kubernetes.executor.deleteOnTermination": "true",
        "spark.executor.instances": str(asked.count),
        "spark.executor.cores": str(cores_of(asked.cpu)),
        "spark.executor.memory": f"{heap // MIB}m",
        "spark.executor.memoryOverhead": f"{overhead // MIB}m",
        "spark.dynamicAllocation.enabled": "false",
        # The session is there at once; whoever opened it waits for executors, and says why none comes.
        "spark.scheduler.minRegisteredResourcesRatio": "0.0",
        "spark.log.level": "ERROR",  # an executor that was lost is one
        # Pods are all that is made: no ConfigMap, no claim, and no service, since executors know the driver's address.
        "spark.kubernetes.executor.disableConfigMap": "true",
        "spark.kubernetes.driver.service.deleteOnTermination": "false",
        "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
        "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
    }


def memory_of(memory: str) -> tuple[int, int]:
    """Bytes of an executor's heap and of the rest; together exactly what its container may take.

    Raises:
        ConfigError: too little for a heap that Spark starts in.
    """
    total = bytes_of(memory) // MIB * MIB
    overhead = max(MIN_OVERHEAD, int(total * OVERHEAD_SHARE) // MIB * MIB)
    if total - overhead < MIN_HEAP:
        least = (MIN_OVERHEAD + MIN_HEAP) // MIB
        raise ConfigError(
            f"placement.executors.memory is {memory}, in which no Spark executor starts; expected at least {least}Mi: "
            f"{MIN_HEAP // MIB}Mi of heap and {MIN_OVERHEAD // MIB}Mi beside it"
        )
    return total - overhead, overhead


def cores_of(cpu: str) -> int:
    """How many tasks an executor works on at a time: one for each whole CPU, at least one."""
    return max(1, int(float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)))


def server_of(environment: Mapping[str, str]) -> str:
    """Where pods find the API server."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
