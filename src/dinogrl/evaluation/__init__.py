"""Ranking and scoring: arrays in, scores out. No network is known here."""

from dinogrl.evaluation.evaluate import Evaluation, evaluate
from dinogrl.evaluation.metrics import evaluate_distances, evaluate_streamed
from dinogrl.evaluation.protocols import PROTOCOLS, Protocol
from dinogrl.evaluation.results import read_metrics, write_metrics

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Protocol",
    "evaluate",
    "evaluate_distances",
    "evaluate_streamed",
    "read_metrics",
    "write_metrics",
]
