"""Ranking and scoring: arrays in, scores out. No network is known here."""

from dinogrl.evaluation.metrics import evaluate_distances, evaluate_streamed

__all__ = ["evaluate_distances", "evaluate_streamed"]
