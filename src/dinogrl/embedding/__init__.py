"""From tracklets to part vectors."""
