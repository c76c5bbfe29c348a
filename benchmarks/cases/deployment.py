"""Seconds from the start of a process to the first label map of an exported segmentor.

The tiny network of linear probing is exported, and labels an image in a process of its own, without
mmcv and mmseg. References are `import torch`, which nothing can undercut, and the same image by the
training stack (`tools/image_demo.py`'s way). All take turns. CPU time of one thread is that which a
busy machine does not lengthen; wall time is what is waited for.
"""
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.context import Context, at_most
from benchmarks.execution import ROOT
from benchmarks.registry import benchmark

REPEATS, TINY = 7, 'configs/tiny/linear_probing_tiny.py'
HIDDEN = ('mmcv', 'mmseg', 'mmsegmentation')
TORCH, STACK = 'import torch', 'with the training stack'
LABEL = """
from mmseg_custom.deploy import Segmentor
Segmentor.from_pretrained({folder!r}, device='cpu')({image!r})
"""
BY_STACK = """
import mmseg_custom
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.inference import Predictor
from mmseg_custom.visualization.files import read_image
Predictor(load_config({config!r}, trains=False), {checkpoint!r}, 'cpu')(read_image({image!r}))
"""


def prepare(folder: Path) -> dict[str, str]:
    """Writes an image, a checkpoint of random weights and its export; returns their paths."""
    import numpy as np
    import torch
    from PIL import Image

    from mmseg_custom.checkpoint import save_checkpoint
    from mmseg_custom.engine.build import build_network, init_heads
    from mmseg_custom.engine.config import load_config
    from mmseg_custom.engine.export import export_folder

    torch.manual_seed(0)
    cfg = load_config(TINY, trains=False)
    model = build_network(cfg)
    init_heads(model)
    found = {name: str(folder / name) for name in ('image.png', 'checkpoint.pth', 'segmentor')}
    save_checkpoint(model, found['checkpoint.pth'], meta={})
    export_folder(cfg, found['checkpoint.pth'], found['segmentor'])
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    Image.fromarray(pixels).save(found['image.png'])
    return dict(image=found['image.png'], checkpoint=found['checkpoint.pth'],
                folder=found['segmentor'], config=TINY)


def link_libraries(folder: Path) -> None:
    """Fills a folder with links to what is installed, but for mmcv and mmseg."""
    folder.mkdir()
    for name in ('purelib', 'platlib'):
        for entry in Path(sysconfig.get_paths()[name]).iterdir():
            if not entry.name.lower().startswith(HIDDEN) and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)


def seconds_of(code: str, libraries: Path | None = None) -> tuple[float, float]:
    """Runs Python code in a process of its own; returns its seconds of CPU and of wall time.

    Args:
        code: Code.
        libraries: Folder in the place of site-packages.
    """
    path = os.pathsep.join(map(str, filter(None, (ROOT, libraries))))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *(['-S'] if libraries else []), '-c', code], check=True,
                   capture_output=True, cwd=ROOT,
                   env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), wall


@benchmark('Seconds from the start of a process to the first label map of an exported segmentor',
           minutes=5, devices=('cpu',), suite=())
def case(run: Context) -> None:
    """Measures all in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, libraries = prepare(folder), folder / 'libraries'
        link_libraries(libraries)
        jobs = {TORCH: ('import torch', libraries), 'ours': (LABEL.format(**paths), libraries),
                STACK: (BY_STACK.format(**paths), None)}
        found: dict[str, list[tuple[float, float]]] = {each: [] for each in jobs}
        seconds_of(*jobs['ours'])  # which compiles our files where that was not done
        for _ in range(1 if run.tiny else REPEATS):
            for each, job in jobs.items():
                found[each].append(seconds_of(*job))
        for i, clock in enumerate(('CPU time', 'wall time')):
            times = {each: [pair[i] for pair in pairs] for each, pairs in found.items()}
            run.row(f'first label map, {clock}', 's', times['ours'],
                    {TORCH: times[TORCH], STACK: times[STACK]}, targets=[at_most(TORCH, 1.5)])
