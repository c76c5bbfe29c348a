"""Serves a page that labels images: python tools/demo_web.py [CONFIG CHECKPOINT] [options].

Without arguments it uses the tiny network that `make demo` trains.
"""
import argparse
import importlib.util
import os.path as osp

import _root  # noqa: F401

from mmseg_custom.distributed.devices import choose_device
from mmseg_custom.engine import cli
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.inference import Predictor
from mmseg_custom.errors import InputError

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIG = osp.join(ROOT, 'configs/tiny/full_tuning_tiny.py')
CHECKPOINT = osp.join(ROOT, 'work_dirs/demo/training/latest.pth')
LOOPBACK = ('127.0.0.1', 'localhost', '::1')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Serve a page: drop an image, see its labels')
    parser.add_argument('config', nargs='?', help='config file; default: the tiny network')
    parser.add_argument('checkpoint', nargs='?', help="checkpoint file, or 'none' for the "
                        "untrained network; default: of `make demo`, if it was run")
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; the default '
                        'is reached from this machine alone, 0.0.0.0 from everywhere')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
    parser.add_argument('--max-mb', type=float, default=20, help='largest upload, MiB')
    parser.add_argument('--max-megapixels', type=float, default=25, help='largest image')
    parser.add_argument('--backbone', help="the backbone's file, for a checkpoint without it")
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        help='default: cuda where there is a GPU')
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    args = parser.parse_args()
    if args.config and not args.checkpoint:
        parser.error("CONFIG needs a CHECKPOINT ('none' for the untrained network)")
    return args


def main() -> None:
    """Loads the network, serves the page and waits until it is interrupted."""
    args = parse_args()
    if importlib.util.find_spec('gradio') is None:
        raise InputError("the package gradio is not installed: pip install -e '.[web]'")
    from examples.demo_data.scene import draw_scene
    from mmseg_custom.visualization.web.app import build, launch
    from mmseg_custom.visualization.web.examples import describe, examples_for
    config = args.config or CONFIG
    checkpoint = args.checkpoint or (CHECKPOINT if osp.exists(CHECKPOINT) else 'none')
    if checkpoint != 'none' and not osp.exists(checkpoint):
        raise InputError(f'checkpoint {checkpoint} does not exist')
    cfg = load_config(config, trains=False)
    device = choose_device(args.device)
    predictor = Predictor(cfg, checkpoint, device, args.backbone)
    app = build(predictor, predictor.classes, predictor.palette,
                title=osp.splitext(osp.basename(config))[0],
                note=describe(predictor.network, len(predictor.classes), checkpoint, device),
                first_label=predictor.first_label, megapixels=args.max_megapixels,
                examples=examples_for(cfg.data.get('val') or cfg.data.test,
                                      lambda number: draw_scene(0, 1, number)[0],
                                      hides_data=args.host not in LOOPBACK))
    print(f'{launch(app, args.host, args.port, args.max_mb)} (end with Ctrl-C)', flush=True)
    if args.host not in LOOPBACK:
        print('everyone who reaches this machine can use the page', flush=True)
    app.block_thread()


if __name__ == '__main__':
    cli.run(main)
