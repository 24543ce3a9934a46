"""A simulated world: walking people seen by visible and infrared cameras, with true silhouettes."""
