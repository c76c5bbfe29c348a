"""Tracks trainings with TensorBoard, Weights & Biases and MLflow (docs/tracking.md).

- attach: which run the trackers of a runner track
- lines: what each of them gets: figures, pictures, checkpoints
- tracker: when, and what becomes of one that fails
- description: what a run is: config, seed, versions, command, sweep
- record: tracking.json in the work dir: the tracked run that a resumed run goes on in
- tensorboard, weights_and_biases (wandb_files), mlflow_tracker: one of them each
"""
from .mlflow_tracker import MlflowTracker
from .tensorboard import TensorboardTracker
from .weights_and_biases import MMSegWandbTracker, WandbTracker

__all__ = ['MMSegWandbTracker', 'MlflowTracker', 'TensorboardTracker', 'WandbTracker']
