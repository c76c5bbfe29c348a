"""Labels images: python tools/image_demo.py IMAGE_OR_FOLDER CONFIG CHECKPOINT [options].

An image that cannot be read is named, the others are labelled, and the exit code is 1.

Writes OUT/overlays/NAME.jpg, the image, painted, with a legend of the classes in it, and
OUT/labels/NAME.png, class numbers with the palette (ADE20K: 1..150).
"""
import argparse
import os
import os.path as osp
import sys
from collections import Counter

import _root  # noqa: F401
from tqdm import tqdm

from mmseg_custom.distributed.devices import choose_device
from mmseg_custom.engine import arguments, cli
from mmseg_custom.engine.config import default_work_dir, load_config
from mmseg_custom.engine.each import for_each
from mmseg_custom.engine.inference import Predictor
from mmseg_custom.engine.options import UNTRAINED
from mmseg_custom.errors import InputError
from mmseg_custom.targets import try_target
from mmseg_custom.visualization.files import read_image, save_labels, save_with_legend
from mmseg_custom.visualization.overlay import blend

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Label images and paint the labels over them')
    parser.add_argument('images', help=f'an image, or a folder of them ({" ".join(ENDINGS)})')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    parser.add_argument('--out', help='folder; default: work_dirs/<name of the config>/image_demo')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the paint, 0..1')
    parser.add_argument('--backbone', help="the backbone's file, for a checkpoint without it")
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        help='default: cuda where there is a GPU')
    parser.add_argument('--cfg-options', nargs='+', action=arguments.KeyValues, default={},
                        metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    args = parser.parse_args()
    if not 0 <= args.opacity <= 1:
        parser.error(f'--opacity {args.opacity}: expected 0..1')
    return args


def images_in(path: str) -> list[str]:
    """Lists the image, or the images of a folder.

    Raises:
        InputError: If there is none, or if two have the same name but for the ending.
    """
    if not osp.exists(path):
        raise InputError(f'{path} does not exist: expected an image or a folder of images')
    if not osp.isdir(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.lower().endswith(ENDINGS))
    if hidden := [name for name in names if name.startswith('._')]:
        print(f'left out: {len(hidden)} files ._* of macOS, which hold no image', file=sys.stderr)
        names = [name for name in names if name not in hidden]
    others = {name for name in os.listdir(path) if not name.startswith('.')}.difference(names)
    folders = {name for name in others if osp.isdir(osp.join(path, name))}
    for what, left in (('folders', folders), ('files of other suffixes', others - folders)):
        if left:
            print(f'left out: {len(left)} {what} ({min(left)!r} ...)', file=sys.stderr)
    if not names:
        raise InputError(f'{path} holds no image: expected files that end in {" ".join(ENDINGS)}')
    stem, times = Counter(osp.splitext(name)[0] for name in names).most_common(1)[0]
    if times > 1:
        raise InputError(f'{path} holds {times} images called {stem}: rename one, for their '
                         'results would overwrite each other')
    return [osp.join(path, name) for name in names]


def main() -> None:
    """Labels the images one by one and writes label maps and overlays."""
    args = parse_args()
    images = images_in(args.images)
    cfg = load_config(args.config, args.cfg_options, trains=False)
    if args.checkpoint != UNTRAINED and not osp.exists(args.checkpoint):
        raise InputError(f'checkpoint {args.checkpoint} does not exist')
    out = args.out or osp.join(default_work_dir(args.config), 'image_demo')
    for kind in ('overlays', 'labels'):
        try_target(osp.join(out, kind, 'image'))
    predictor = Predictor(cfg, args.checkpoint, choose_device(args.device), args.backbone)
    classes, palette = predictor.classes, predictor.palette

    def label(path: str) -> None:
        image = read_image(path)
        labels = predictor(image)
        stem = osp.splitext(osp.basename(path))[0]
        save_labels(labels, palette, osp.join(out, 'labels', f'{stem}.png'),
                    predictor.first_label)
        save_with_legend(blend(image, labels, palette, args.opacity), labels, classes, palette,
                         osp.join(out, 'overlays', f'{stem}.jpg'))

    print(out)
    for_each(tqdm(images, unit='image', disable=len(images) == 1), label, 'images')


if __name__ == '__main__':
    cli.run(main)
