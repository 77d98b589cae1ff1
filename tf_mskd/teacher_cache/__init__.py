"""The teacher's outputs on disk: stored once, read in every epoch."""
