"""The training loss: binary cross entropy toward labels and toward a teacher, weighted by label and by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def multi_task_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    task_weights: Tensor,
    soft_labels: Tensor | None = None,
    hard_weight: float = 1.0,
    soft_weight: float | Tensor = 0.0,
    log_variances: Tensor | None = None,
) -> Tensor:
    """sum_t a_t * L_t, L_t = mean_b w_b * [hard_weight * BCE(logit_bt, y_bt) + soft_weight_t * BCE(logit_bt, q_bt)].

    Cross entropy is linear in its target, so both terms are computed as one toward the mixed target.

    With log variances s it is sum_t a_t * [exp(-s_t) * L_t + s_t / 2] (homoscedastic uncertainty, Kendall et al. 2018,
    eq. 10 for classification): least at exp(-s_t) = 1 / (2 L_t), so that every label counts as much relative to its own
    loss, and `task_weights` say how much more than that.

    Args:
        logits, labels: (B, T); labels are 0 or 1.
        weights: (B,), of mean 1 over the whole training set: dividing by a batch's own sum would bias small batches.
        task_weights: (T,).
        soft_labels: (B, T) teacher probabilities q, or None without a teacher.
        hard_weight, soft_weight: not negative, their sum above 0; without soft labels only `hard_weight` counts.
            `soft_weight` is one number for all labels or (T,).
        log_variances: (T,) learned, or None for fixed weights.
    """
    total: float | Tensor = hard_weight
    target = labels
    if soft_labels is not None:
        total = hard_weight + soft_weight
        target = (hard_weight * labels + soft_weight * soft_labels) / total
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")  # (B, T)
    by_label = (weights.unsqueeze(1) * cross_entropy).mean(dim=0)  # (T,)
    if log_variances is None:
        return by_label @ (total * task_weights)
    return (total * by_label * torch.exp(-log_variances) + log_variances / 2) @ task_weights


def best_log_variances(rates: Tensor) -> Tensor:
    """(T,) log variances at which the loss of a network that predicts each label's rate, (T,) in (0, 1), is least.

    From 0 a rare label's would take as many steps as training has: each moves by a learning rate at most.
    """
    entropy = -(rates * rates.log() + (1 - rates) * (1 - rates).log())
    return (2 * entropy).log()
