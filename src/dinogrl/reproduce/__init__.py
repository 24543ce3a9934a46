"""The whole story, and the paper's tables and figures, one command each."""
