"""A run as an object of Kubernetes, and events at its verdicts: what `kubectl` shows. A projection; nothing reads it."""
