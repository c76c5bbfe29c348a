import sys
from types import SimpleNamespace

import pytest
from matplotlib import pyplot

from mmseg_custom.compat import LONGEST_SIDE, draw_large_matrices


@pytest.mark.parametrize('script, limited', [('confusion_matrix.py', True), ('train.py', False)])
def test_figures_of_one_tool_stay_within_what_memory_holds(monkeypatch, script, limited):
    monkeypatch.setitem(sys.modules, '__main__', SimpleNamespace(__file__=f'/mmseg/tools/{script}'))
    monkeypatch.setattr(pyplot, 'subplots', pyplot.subplots)
    draw_large_matrices()
    large, _ = pyplot.subplots(figsize=(300, 240), dpi=180)
    small, _ = pyplot.subplots(figsize=(10, 8), dpi=180)
    assert (large.dpi < 180) == limited and small.dpi == 180
    assert not limited or round(large.dpi * 300) == LONGEST_SIDE
    pyplot.close('all')
