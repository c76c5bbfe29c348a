"""Labels images by an exported segmentor, in a process that lacks mmcv and mmseg.

python label_by_export.py FOLDER OUT IMAGE ... saves the label maps in OUT, which ends in .npz, and
a picture of the first in OUT.png.
"""
import sys

import numpy as np

LATE = ('torchvision', 'torch._dynamo', 'timm.models', 'scipy', 'transformers', 'cv2', 'peft',
        'huggingface_hub', 'torch.distributed.checkpoint')


def main(folder: str, out: str, *paths: str) -> None:
    """Labels images one by one, as files, and all together, as arrays."""
    from PIL import Image

    from mmseg_custom.deploy import Segmentor

    segmentor = Segmentor.from_pretrained(folder, device='cpu')
    labels = [segmentor(path) for path in paths]
    if loaded := [name for name in LATE if name in sys.modules]:
        raise AssertionError(f'imported in vain: {loaded}')
    together = segmentor([np.asarray(Image.open(path).convert('RGB')) for path in paths])
    assert all(np.array_equal(*pair) for pair in zip(labels, together))
    segmentor.colorize(labels[0]).save(f'{out}.png')
    np.savez(out, *labels)


if __name__ == '__main__':
    main(*sys.argv[1:])
