"""Figures of mmseg's tools stay within what machines can draw."""
import pytest
from matplotlib import pyplot

import mmseg_custom  # noqa: F401
from mmseg_custom.compat import LONGEST_SIDE


@pytest.mark.parametrize('figsize, dpi, expected', [
    ((300, 240), 180, LONGEST_SIDE / 300),  # confusion_matrix.py with 150 classes
    ((38, 30.4), 180, 180),  # and with 19
    ((6, 4), None, None),
])
def test_large_figures_get_fewer_dots(figsize, dpi, expected):
    figure, axes = pyplot.subplots(figsize=figsize, **({} if dpi is None else dict(dpi=dpi)))
    pyplot.close(figure)
    assert figure.dpi == pytest.approx(expected or pyplot.rcParams['figure.dpi'])
    assert axes.figure is figure
