"""What is imported when it is needed; as a script, this file is a process that has just started."""
import sys

import torch
from helpers.commands import ROOT, run

UNSAID: list[str] = []
LATE = ['torchvision', 'matplotlib', 'timm.models', 'scipy', 'transformers']
if torch.__version__ >= '2.8':  # 2.6 imports it with its FSDP, and prints that line past any log
    LATE.append('torch._dynamo')
    UNSAID.append('No CUDA runtime')


def test_a_start_imports_what_it_needs():
    words = run('python', __file__, PYTHONPATH=f'{ROOT}:{ROOT}/tests').splitlines()
    assert words[-1] == 'right'
    assert not [line for line in words for unsaid in UNSAID if unsaid in line]


def main() -> None:
    """Looks at what the package has imported; then what came late has to work as ever."""
    import mmseg_custom  # noqa: F401
    early = [name for name in LATE if name in sys.modules]
    assert not early, early
    from mmcv.runner import checkpoint
    from mmseg.apis import inference
    from mmseg.models import BACKBONES, HEADS

    from mmseg_custom.layers.block import DropPath
    assert 'InternViT6B' in BACKBONES and 'FCNHead' in HEADS and 'TIMMBackbone' in BACKBONES
    assert not [name for name in LATE if name in sys.modules]
    assert 'resnet50' in checkpoint.get_torchvision_models()
    import torchvision.ops
    from torchvision import transforms
    assert callable(torchvision.ops.nms) and transforms.Compose
    assert checkpoint.torchvision.models is torchvision.models
    import timm
    from timm.models import create_model
    assert timm.layers.DropPath is timm.layers.drop.DropPath is DropPath
    assert timm.create_model is create_model and timm.__version__
    inference.plt.switch_backend('agg')
    import matplotlib.pyplot
    assert inference.plt.figure is matplotlib.pyplot.figure
    print('right')


if __name__ == '__main__':
    main()
