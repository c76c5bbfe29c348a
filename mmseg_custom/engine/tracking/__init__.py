"""Tracks trainings with TensorBoard, Weights & Biases and MLflow (docs/tracking.md).

- tracker: what each of them gets: lines of the log, pictures, checkpoints
- description: what a run is: config, seed, versions, command, sweep
- record: tracking.json in the work dir: the tracked run that a resumed run goes on in
- tensorboard, weights_and_biases (wandb_files), mlflow_tracker: one of them each
"""
from .attach import attach_trackers
from .mlflow_tracker import MlflowTracker
from .tensorboard import TensorboardTracker
from .weights_and_biases import MMSegWandbTracker, WandbTracker

__all__ = ['MMSegWandbTracker', 'MlflowTracker', 'TensorboardTracker', 'WandbTracker',
           'attach_trackers']
