"""Training: schedules, the loop, a whole run; and the shipped prior's own training."""
