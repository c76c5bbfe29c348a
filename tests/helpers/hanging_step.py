"""A step of a pipeline that never returns for one image, as where a disk does not answer."""
import time

from mmseg.datasets.builder import PIPELINES


@PIPELINES.register_module()
class HangingStep:
    """Hangs at the third image of a split."""

    def __call__(self, results: dict) -> dict:
        while '00000003' in results['filename']:
            time.sleep(1)
        return results
