"""The only database: queue, calibration registry, products and checkpoints, one transaction a change."""
