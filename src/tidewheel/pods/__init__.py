"""What a step does with the cluster that it runs in: its own pod, and the pods that it starts."""
