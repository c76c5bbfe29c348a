"""Pictures of labels: overlays, legends, grids."""
