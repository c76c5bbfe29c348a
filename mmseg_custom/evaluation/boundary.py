"""Boundary IoU: IoU of the bands along the edges of the classes.

Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021. A pixel of a class belongs to its band if another class, or the outside of
the image, is at most d pixels away; d is 2 % of the image's diagonal.

Letters: `H W` pixels, `K` classes.
"""
import cv2
import numpy as np

WIDTH = 0.02  # d over the diagonal, as published


def band(labels: np.ndarray, distance: int) -> np.ndarray:
    """Marks the pixels whose class ends within a distance, for all classes at once.

    The authors erode the mask of each class `distance` times by 3x3, with zeros around the image.
    A pixel survives that exactly where the square of side 2 d + 1 around it holds its class alone,
    that is, where the least and the greatest label in the square are the same: two filters,
    however many classes there are.

    Ignored pixels belong to no class and end none: their class is not known.

    Args:
        labels: Classes (H, W) from 0; -1 where ignored.
        distance: Width d of the band in pixels (chessboard metric).

    Returns:
        Mask, bool (H, W).
    """
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    kind = np.uint8 if labels.max() < 253 else np.uint16
    top = np.iinfo(kind).max  # 0 and the top are ignored pixels; the classes begin at 2
    ignored = labels < 0
    classes = (labels + 2).astype(kind)
    # The outside is label 1, which is no class: it ends all of them.
    least = cv2.erode(np.where(ignored, top, classes).astype(kind), square,
                      borderType=cv2.BORDER_CONSTANT, borderValue=1)
    greatest = cv2.dilate(np.where(ignored, 0, classes).astype(kind), square,
                          borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return (least != greatest) & ~ignored


def boundary_areas(prediction: np.ndarray, ground_truth: np.ndarray,
                   classes: int) -> np.ndarray:
    """Counts the pixels that Boundary IoU is computed from.

    Args:
        prediction: Classes (H, W), 0..K-1.
        ground_truth: Classes (H, W); -1 where ignored. There the prediction is ignored too.
        classes: Number of classes K.

    Returns:
        Pixels (3, K), int64: intersection of the two bands of a class, band of the prediction,
        band of the ground truth. The union is the sum of the last two minus the first.
    """
    distance = max(1, round(WIDTH * float(np.hypot(*ground_truth.shape))))
    prediction = np.where(ground_truth < 0, -1, prediction)
    bands = band(prediction, distance), band(ground_truth, distance)
    chosen = (ground_truth[bands[0] & bands[1] & (prediction == ground_truth)],
              prediction[bands[0]], ground_truth[bands[1]])
    return np.stack([np.bincount(labels[labels < classes], minlength=classes)
                     for labels in chosen])
