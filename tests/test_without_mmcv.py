"""The package without mmcv and mmseg; as a script, this file is a process that lacks them."""
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

LATE = ('torchvision', 'torch._dynamo', 'timm.models', 'scipy', 'transformers', 'cv2')


def test_networks_and_windows_need_neither_and_the_rest_says_so(bare_environment, tmp_path):
    found = tmp_path / 'labels.pt'
    assert bare_environment.python(__file__, found).splitlines()[-1] == 'right'
    assert torch.equal(torch.load(found), computed_labels())


def computed_labels() -> Tensor:
    """Computes a label map (90, 130) by a tiny backbone and a classifier, in two views."""
    from mmseg_custom.models import InternViT6B
    from mmseg_custom.models.segmentors.image_views import ImageView
    from mmseg_custom.models.segmentors.window_inference import WindowInference

    class Classifier(nn.Conv2d):
        def forward(self, features: list[Tensor]) -> Tensor:
            return super().forward(features[0])

    class Segmentor(WindowInference, nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = InternViT6B(img_size=56, embed_dim=32, num_heads=2, depth=2,
                                        out_indices=[1])
            self.decode_head = Classifier(32, 5, 1)
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
    for name, missing in (('mmseg', ['mmcv']), ('mmcv', [])):
        (folder / name).mkdir()
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
    torch.save(computed_labels(), sys.argv[1])
    assert not [name for name in LATE if name in sys.modules]
    from mmseg_custom.models import FrozenViT, InternViTAdapter
    adapter = InternViTAdapter(
        img_size=64, embed_dim=32, num_heads=2, depth=4, conv_inplane=8, deform_num_heads=2,
        interaction_indexes=[[0, 1], [2, 3]])
    assert [len(each[0]) for each in adapter(torch.randn(1, 3, 64, 64))] == [32] * 4
    assert issubclass(FrozenViT, nn.Module)
    check_broken_libraries(Path(sys.argv[1]).parent)
    print('right')


if __name__ == '__main__':
    main()
