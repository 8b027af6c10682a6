"""The training loss: binary cross entropy toward labels and toward a teacher, weighted by label and by row."""

from __future__ import annotations

from torch import Tensor, nn


def multi_task_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    task_weights: Tensor,
    soft_labels: Tensor | None = None,
    hard_weight: float = 1.0,
    soft_weight: float | Tensor = 0.0,
) -> Tensor:
    """sum_t a_t * mean_b w_b * [hard_weight * BCE(logit_bt, y_bt) + soft_weight_t * BCE(logit_bt, q_bt)].

    Cross entropy is linear in its target, so both terms are computed as one toward the mixed target.

    Args:
        logits, labels: (B, T); labels are 0 or 1.
        weights: (B,), of mean 1 over the whole training set: dividing by a batch's own sum would bias small batches.
        task_weights: (T,).
        soft_labels: (B, T) teacher probabilities q, or None without a teacher.
        hard_weight, soft_weight: not negative, their sum above 0; without soft labels only `hard_weight` counts.
            `soft_weight` is one number for all labels or (T,).
    """
    total: float | Tensor = hard_weight
    target = labels
    if soft_labels is not None:
        total = hard_weight + soft_weight
        target = (hard_weight * labels + soft_weight * soft_labels) / total
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")  # (B, T)
    return (weights.unsqueeze(1) * cross_entropy).mean(dim=0) @ (total * task_weights)
