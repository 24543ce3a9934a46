"""The command line: one file a command group. The only place that prints and exits."""
