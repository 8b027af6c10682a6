"""The scorer as an MLflow pyfunc with its normal input, a data frame (bench/peer_serving.py saves and serves this file)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from bench.peer_serving import scorer


class Ranker(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        self.scorer = scorer()

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> dict[str, list[float]]:
        scores = self.scorer.score({name: model_input[name].to_numpy() for name in model_input.columns})
        return {label: values.tolist() for label, values in scores.items()}


set_model(Ranker())
