"""The Distiller and the loop around it: steps, schedules, checkpoints, devices."""
