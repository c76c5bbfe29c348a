"""The ground truth of an image, as the metrics read it."""
import numpy as np
from mmseg.datasets import CustomDataset

IGNORE_INDEX = 255  # mmseg's label for pixels that belong to no class


def read_ground_truth(dataset: CustomDataset, index: int) -> np.ndarray:
    """Loads the label map (H, W) of an image: 0..K-1, or 255 where it is not labelled."""
    labels = dataset.get_gt_seg_map_by_idx(index).astype(np.int64)
    if dataset.reduce_zero_label:  # mmseg leaves this to the metric
        labels = np.where((labels == 0) | (labels == IGNORE_INDEX), IGNORE_INDEX, labels - 1)
    return labels
