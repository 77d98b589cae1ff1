"""Early exits: criteria, thresholds, calibration and what they cost and save."""
