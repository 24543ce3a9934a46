"""``python -m dinogrl`` is the command ``dinogrl``."""

from dinogrl.cli.main import run

run()
