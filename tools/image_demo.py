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

from _arguments import add_cfg_options, add_debug, add_device
from _command_line import Parser, existing, fail, start

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description='Label images and paint the labels over them')
    parser.add_argument('images', help=f'an image, or a folder of them ({" ".join(ENDINGS)})')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    parser.add_argument('--out', help='folder; default: work_dirs/<name of the config>/image_demo')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the paint, 0..1')
    parser.add_argument('--backbone', help="the backbone's file, for a checkpoint without it")
    add_device(parser)
    add_cfg_options(parser)
    add_debug(parser)
    args = parser.parse_args()
    if not 0 <= args.opacity <= 1:
        parser.error(f'--opacity {args.opacity}: expected 0..1')
    existing(args, 'images', 'config', 'checkpoint', '--backbone')
    args.images = images_in(args.images)
    return args


def images_in(path: str) -> list[str]:
    """Lists the image, or the images of a folder.

    Ends the tool if there is none, or if two have the same name but for the ending.
    """
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
        fail(f'{path} holds no image: expected files that end in {" ".join(ENDINGS)}')
    stem, times = Counter(osp.splitext(name)[0] for name in names).most_common(1)[0]
    if times > 1:
        fail(f'{path} holds {times} images called {stem}: rename one, for their '
                         'results would overwrite each other')
    return [osp.join(path, name) for name in names]


def main(args: argparse.Namespace) -> None:
    """Labels the images one by one and writes label maps and overlays."""
    from mmseg_custom.distributed.devices import choose_device
    from mmseg_custom.engine.config import default_work_dir, load_config
    from mmseg_custom.engine.each import for_each
    from mmseg_custom.engine.inference import Predictor
    from mmseg_custom.targets import try_target
    from mmseg_custom.visualization.files import read_image, save_labels, save_with_legend
    from mmseg_custom.visualization.overlay import blend

    cfg = load_config(args.config, args.cfg_options, trains=False)
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
    for_each(args.images, label, 'images', unit='image')


if __name__ == '__main__':
    start(parse_args, main)
