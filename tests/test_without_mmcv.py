"""The package without mmcv and mmseg; as a script, this file is a process that lacks them."""
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

LATE = ('torchvision', 'torch._dynamo', 'torch.distributed.checkpoint', 'timm.models', 'scipy',
        'transformers', 'cv2')


def test_networks_and_windows_need_neither_and_the_rest_says_so(bare_environment, tmp_path):
    found = tmp_path / 'labels.pt'
    assert bare_environment.python(__file__, found).splitlines()[-1] == 'right'
    assert torch.equal(torch.load(found), computed_labels())


def computed_labels() -> Tensor:
    """Computes a label map (90, 130) by a tiny backbone and a linear head, in two views."""
    from mmseg_custom.models import FCNHead, InternViT6B
    from mmseg_custom.models.segmentors.image_views import ImageView
    from mmseg_custom.models.segmentors.window_inference import WindowInference

    class Segmentor(WindowInference, nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = InternViT6B(img_size=56, embed_dim=32, num_heads=2, depth=2,
                                        out_indices=[1])
            self.decode_head = FCNHead(in_channels=32, channels=32, num_classes=5, num_convs=0,
                                       concat_input=False, with_norm=True, loss_decode=None)
            self.align_corners, self.out_channels = False, 5
            self.test_cfg = dict(mode='slide', crop_size=(56, 56), stride=(42, 42))

    torch.manual_seed(0)
    segmentor = Segmentor().eval()
    image = torch.randn(3, 70, 98)
    with torch.no_grad():
        labels, = segmentor.label_maps([[
            ImageView(image, (90, 130), kept_size=(68, 98)),
            ImageView(image.flip(2), (90, 130), (68, 98), flip_direction='horizontal')]])
    return labels


def check_other_heads() -> None:
    """All heads start and compute; with a type of layer that is not torch's one says what lacks."""
    from mmseg_custom.models import PlainMaskHead, UPerHead
    maps = [torch.randn(1, 6, side, side) for side in (8, 4, 2, 1)]
    options = dict(in_channels=[6] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=5,
                   norm_cfg=dict(type='BN'), loss_decode=None)
    head = UPerHead(**options)
    head.init_weights()
    assert head.eval()(maps).shape == (1, 5, 8, 8)
    masks = PlainMaskHead([6, 6], 5, 16, in_index=[0, 1], num_heads=2, num_blocks=1).eval()
    assert masks(maps[:1] * 2).shape == (1, 5, 32, 32)
    try:
        UPerHead(**{**options, 'act_cfg': dict(type='HSwish')})
    except ModuleNotFoundError as error:
        assert "'mmcv'" in str(error)
    else:
        raise AssertionError('a layer of mmcv is built')


def error_of(statement: str) -> str:
    try:
        exec(statement, {})
    except ModuleNotFoundError as error:
        return str(error)
    raise AssertionError(f'{statement} raised nothing')


def check_broken_libraries(folder: Path) -> None:
    """A library that is installed is not missing, and its own error is not hidden."""
    from mmseg_custom.without_mmcv import missing_libraries
    sys.path.insert(0, str(folder))
    for name, part, missing in (('mmcv', 'transforms', ['mmcv', 'mmseg']),  # mmcv 2
                                ('mmseg', 'core', ['mmcv']), ('mmcv', 'runner', [])):
        (folder / name / part).mkdir(parents=True)
        (folder / name / '__init__.py').write_text(f'raise OSError("{name} is broken")')
        sys.path_importer_cache.clear()
        assert missing_libraries() == missing
    for name in [name for name in sys.modules if name.startswith('mmseg_custom')]:
        del sys.modules[name]
    try:
        import mmseg_custom  # noqa: F401
    except OSError as error:
        assert str(error) == 'mmcv is broken'
    else:
        raise AssertionError('a broken mmcv is imported')


def check_networks(weights: Path) -> None:
    """Weights are read, a ViT-Adapter runs, and there is a FrozenViT."""
    from safetensors.torch import save_file

    from mmseg_custom.models import FrozenViT, InternViT6B, InternViTAdapter
    sizes = dict(img_size=64, embed_dim=32, num_heads=2, depth=4)
    backbone = InternViT6B(patch_size=16, out_indices=[3], **sizes)
    save_file(backbone.state_dict(), weights)
    loaded = InternViT6B(patch_size=16, out_indices=[3], pretrained=str(weights), **sizes)
    assert all(map(torch.equal, loaded.parameters(), backbone.parameters()))
    adapter = InternViTAdapter(conv_inplane=8, deform_num_heads=2,
                               interaction_indexes=[[0, 1], [2, 3]], **sizes)
    assert [len(each[0]) for each in adapter(torch.randn(1, 3, 64, 64))] == [32] * 4
    assert issubclass(FrozenViT, nn.Module)


def main() -> None:
    """Asks for what there is and what there is not."""
    import mmseg_custom
    assert mmseg_custom.__version__
    for statement in ('import mmseg_custom.engine', 'from mmseg_custom import optim',
                      'from mmseg_custom.models import InternViTSegmentor',
                      'import mmseg_custom; mmseg_custom.datasets'):
        error = error_of(statement)
        assert error.startswith('mmseg_custom.') and "pip install 'mmcv-full" in error, error
    assert not hasattr(mmseg_custom, 'nothing')
    assert error_of('import mmseg_custom.nothing') == "No module named 'mmseg_custom.nothing'"
    sys.modules['safetensors'] = None  # as if it were not installed
    assert error_of('import mmseg_custom.checkpoint.files').endswith(': pip install safetensors')
    del sys.modules['safetensors']
    torch.save(computed_labels(), sys.argv[1])
    check_other_heads()
    assert not [name for name in LATE if name in sys.modules]
    check_networks(Path(sys.argv[1]).with_suffix('.safetensors'))
    check_broken_libraries(Path(sys.argv[1]).parent)
    print('right')


if __name__ == '__main__':
    main()
