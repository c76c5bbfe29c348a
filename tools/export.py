"""Exports a segmentor: python tools/export.py CONFIG CHECKPOINT OUT [options].

OUT is a folder that mmseg_custom.deploy.Segmentor loads without mmcv and mmseg: config.json,
model.safetensors and a model card. See docs/deployment.md.
"""
import argparse

from _arguments import add_cfg_options, add_debug
from _command_line import Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description='Write a folder that labels images without mmcv and mmseg')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    parser.add_argument('target', metavar='OUT', help='folder to write; must not exist')
    parser.add_argument('--backbone', help='backbone file, for a checkpoint without it')
    parser.add_argument('--aug-test', action='store_true',
                        help='label images in six scales and flipped, as tools/test.py does so')
    parser.add_argument('--results', metavar='FILE', help='eval_*.json of tools/test.py, or a work '
                        'dir with some, for the model card; default: those of this checkpoint '
                        'beside it')
    parser.add_argument('--license', default='other', metavar='ID', help='licence of the weights, '
                        'by the identifier of the Hugging Face hub, e.g. mit (default: '
                        '%(default)s, which LICENSE.md explains)')
    parser.add_argument('--onnx', action='store_true',
                        help='also write the network as model.onnx, and check it with onnxruntime')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'float16'],
                        help='what the backbone in model.onnx computes in (default: %(default)s)')
    parser.add_argument('--aot', action='store_true', help='also compile the network as model.pt2 '
                        'by AOTInductor, for --device')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'],
                        help='device that model.pt2 is for (default: %(default)s)')
    parser.add_argument('--push-to-hub', metavar='REPO', help='upload the folder to this '
                        'repository of the Hugging Face hub, owner/name')
    parser.add_argument('--private', action='store_true',
                        help='make the repository private, if it is not there yet')
    add_cfg_options(parser)
    add_debug(parser)
    args = parser.parse_args()
    if args.private and not args.push_to_hub:
        parser.error('--private is for the repository of --push-to-hub: give both')
    if args.dtype != parser.get_default('dtype') and not args.onnx:
        parser.error('--dtype is that of --onnx: give both')
    if args.device != parser.get_default('device') and not args.aot:
        parser.error('--device is that of --aot: give both')
    return existing(args, 'config', 'checkpoint', '--backbone', '--results')


def main(args: argparse.Namespace) -> None:
    """Exports, uploads where that is asked for, and prints what was written."""
    from mmseg_custom.deploy.graphs import add_aot, add_onnx, check_graphs
    from mmseg_custom.deploy.hub import check_repository, push_to_hub
    from mmseg_custom.engine.config import load_config, resolve_config
    from mmseg_custom.engine.export import export_folder
    from mmseg_custom.engine.options import RunOptions

    if args.push_to_hub:
        check_repository(args.push_to_hub)
    check_graphs(args.onnx, args.aot, args.device)
    options = RunOptions(checkpoint=args.checkpoint, aug_test=args.aug_test, owns_work_dir=False)
    cfg, _ = resolve_config(load_config(args.config, args.cfg_options, trains=False), options)
    export_folder(cfg, args.checkpoint, args.target, backbone=args.backbone, results=args.results,
                  license=args.license, show_progress=True)
    print(f'written: {args.target}')
    if args.onnx:
        print(f'onnxruntime and PyTorch, both in {args.dtype}, on '
              f'{add_onnx(args.target, args.dtype)}')
    if args.aot:
        print(f'AOTInductor and PyTorch, both in the dtypes of the folder on {args.device}, on '
              f'{add_aot(args.target, args.device)}')
    if args.push_to_hub:
        print(f'uploaded: {push_to_hub(args.target, args.push_to_hub, args.private)}')


if __name__ == '__main__':
    start(parse_args, main)
