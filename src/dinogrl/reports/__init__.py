"""From results on disk to tables, figures and one self-contained page."""
