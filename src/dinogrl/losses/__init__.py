"""Losses: functions of tensors, and the objective that weighs them."""

from dinogrl.losses.objective import Objective

__all__ = ["Objective"]
