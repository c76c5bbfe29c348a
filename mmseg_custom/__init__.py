"""InternViT-Seg: importing this package registers all of it with MMSegmentation.

Where mmcv or mmseg is not installed, ``mmseg_custom.deploy`` runs exported segmentors, and what
trains and tests says what it lacks.
"""
import importlib

from .version import __version__
from .without_mmcv import explain_missing_libraries, missing_libraries

LATE = ['deploy']  # packages that are imported where they are used

if missing_libraries():
    explain_missing_libraries()
    LATE += ['datasets', 'engine', 'models', 'optim']
else:
    from . import compat

    compat.stand_in_for_mmcv_ops()

    from . import datasets, engine, models, optim  # noqa: F401
    from .checkpoint import install_safe_loading
    from .compat import data_containers, labels
    from .compat.inference import infer_from_any_input
    from .models.registration import register_all

    register_all()
    compat.collect_on_any_device()
    compat.look_for_mmcv_ops()
    compat.clear_torch_ops()
    compat.copy_batches_on_streams()
    data_containers.pin_batches()
    compat.draw_large_matrices()
    compat.stay_without_gpu()
    compat.leave_losses_on_device()
    labels.map_stored_numbers()
    labels.keep_axes_of_labels()
    labels.count_no_ignored_pixel()
    infer_from_any_input()
    install_safe_loading()

__all__ = ['__version__', 'datasets', 'engine', 'models', 'optim']


def __getattr__(name: str) -> object:
    """Imports a package where it is used.

    Raises:
        ModuleNotFoundError: If it needs a library that is not installed.
    """
    if name in LATE:
        return importlib.import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
