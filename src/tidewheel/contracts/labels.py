"""Labels of every object that a run creates, and that of Kubeflow on what it creates for one."""

RUN, STEP, RECIPE = "tidewheel/run-id", "tidewheel/step", "tidewheel/recipe"
KUBEFLOW_RUN = "pipeline/runid"  # the same id, on pods and workflow
OURS = {"app.kubernetes.io/part-of": "tidewheel"}
