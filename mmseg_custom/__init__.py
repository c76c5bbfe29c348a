"""InternViT-Seg: importing this package registers all of it with MMSegmentation."""
from . import compat

compat.stand_in_for_mmcv_ops()

from . import datasets, engine, models, optim  # noqa: E402
from .checkpoint import install_safe_loading  # noqa: E402
from .compat import data_containers, labels  # noqa: E402
from .compat.inference import infer_from_any_input  # noqa: E402
from .version import __version__  # noqa: E402

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
