"""Serves a page that labels images: python tools/demo_web.py [CONFIG CHECKPOINT] [options].

Without arguments it uses the tiny network that `make demo` trains.
"""
import argparse
import importlib.util
import os.path as osp

from _arguments import add_debug, add_device
from _command_line import CHOICES, Parser, existing, fail, start
from _root import ROOT

CONFIG = osp.join(ROOT, 'configs/tiny/full_tuning_tiny.py')
CHECKPOINT = osp.join(ROOT, 'work_dirs/demo/training/latest.pth')
LOOPBACK = ('127.0.0.1', 'localhost', '::1')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description='Serve a page: drop an image, see its labels')
    parser.add_argument('config', nargs='?', help='config file; default: the tiny network')
    parser.add_argument('checkpoint', nargs='?', help="checkpoint file, or 'none' for the "
                        "untrained network; default: of `make demo`, if it was run")
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; the default '
                        'is reached from this machine alone, 0.0.0.0 from everywhere')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
    parser.add_argument('--max-mb', type=float, default=20, help='largest upload, MiB')
    parser.add_argument('--max-megapixels', type=float, default=25, help='largest image')
    parser.add_argument('--backbone', help="the backbone's file, for a checkpoint without it")
    add_device(parser)
    add_debug(parser)
    args = parser.parse_args()
    if args.config and not args.checkpoint:
        parser.error("CONFIG needs a CHECKPOINT ('none' for the untrained network)")
    if importlib.util.find_spec('gradio') is None:
        fail("the package gradio is not installed: pip install -e '.[web]'")
    return existing(args, 'config', 'checkpoint', '--backbone')


def main(args: argparse.Namespace) -> None:
    """Loads the network, serves the page and waits until it is interrupted."""
    from examples.demo_data.scene import draw_scene
    from mmseg_custom.distributed.devices import choose_device
    from mmseg_custom.engine.config import load_config
    from mmseg_custom.engine.inference import Predictor
    from mmseg_custom.visualization.web.app import build, launch
    from mmseg_custom.visualization.web.examples import describe, examples_for

    config = args.config or CONFIG
    checkpoint = args.checkpoint or (CHECKPOINT if osp.exists(CHECKPOINT) else CHOICES.UNTRAINED)
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
    start(parse_args, main)
