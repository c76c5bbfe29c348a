"""mmseg's encoder-decoder with a test path of its own: images -> windows -> batches -> labels.

Training, configs, weights and labels are those of mmseg; time and memory differ. A views of an
image in multi-scale testing, N images, K classes, H W pixels, h w cells of the head's logits.
"""
from collections.abc import Sequence

import numpy as np
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from ...errors import InputError
from ...layers.quantized_linear import quantized_layers
from ..decode_heads.backbone_blocks import BackboneBlocks
from .image_views import views_of_batch
from .window_inference import WindowInference


class InternViTSegmentor(WindowInference, EncoderDecoder):
    """mmseg's ``EncoderDecoder`` that tests large images fast and in little memory.

    How it does is what :class:`.window_inference.WindowInference` says, whose ``test_cfg`` has one
    key more than mmseg's: ``window_batch``.
    """

    tests_in_lockstep = True  # read where sharded models are tested

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.join_backbone()

    def join_backbone(self) -> None:
        """Gives the backbone's last blocks to a decode head whose queries pass them.

        Raises:
            InputError: If they do not go together.
        """
        blocks = getattr(self.decode_head, 'blocks', None)
        if not isinstance(blocks, BackboneBlocks):
            return
        for name in ('neck', 'auxiliary_head'):
            if hasattr(self, name):
                raise InputError(f"model.{name} with model.decode_head.blocks='backbone': the "
                                 'backbone returns tokens for its last blocks in the place of '
                                 f'feature maps: leave model.{name} out')
        blocks.join(self.backbone)

    def init_weights(self) -> None:
        """Initialises the heads; mmcv would take the mean of each weight, also of 8-bit ones."""
        if not quantized_layers(self.backbone):
            super().init_weights()
            return
        for child in self.children():
            if hasattr(child, 'init_weights'):
                child.init_weights()

    def forward(self, img: Tensor | list | None = None, img_metas: list | None = None,
                return_loss: bool = True, feats: list[Tensor] | None = None, **kwargs):
        """Computes losses or, with ``return_loss=False``, label maps: see :meth:`forward_test`.

        Args:
            img: Images (B, 3, H, W) in training; the views of images in testing.
            img_metas: Metas of the images, dicts as mmseg's ``Collect`` makes them.
            return_loss: Whether this is training.
            feats: Feature maps of the images in the place of ``img``, from a feature cache.
            **kwargs: ``gt_semantic_seg`` (B, 1, H, W) in training; options of testing.
        """
        inputs = img if feats is None else feats  # the backbone takes either
        return super().forward(inputs, img_metas, return_loss, **kwargs)

    def forward_test(self, imgs: Sequence, img_metas: Sequence, rescale: bool = True,
                     lockstep: bool = False, on_device: bool = False,
                     **_kwargs) -> list[np.ndarray] | list[Tensor]:
        """Computes the label maps of a batch of images.

        Args:
            imgs: A views, each (N, 3, H, W), or a list of N images (3, H, W) of any sizes.
            img_metas: A lists of N dicts, as mmseg's ``Collect`` makes them.
            rescale: Whether labels have the size of the original images; else they have that of
                the network's input, for a single view.
            lockstep: Whether all processes of the group test at the same time with weights in
                shards. Each then runs the network equally often, on windows of zeros where it has
                none left; they must call this segmentor equally often.
            on_device: Whether the label maps stay on the device, so that nothing waits for them.

        Returns:
            N label maps (H, W): int64 arrays; on the device, tensors of uint8 or int16.

        Raises:
            InputError: For a ``test_cfg`` that cannot work.
        """
        labels = self.label_maps(views_of_batch(imgs, img_metas, rescale), lockstep)
        return labels if on_device else [x.cpu().numpy().astype(np.int64) for x in labels]

    def simple_test(self, img: Tensor, img_meta: list[dict],
                    rescale: bool = True) -> list[np.ndarray] | list[Tensor]:
        """Computes the label maps of one view: see :meth:`forward_test`."""
        return self.forward_test([img], [img_meta], rescale)

    def aug_test(self, imgs: list, img_metas: list[list[dict]],
                 rescale: bool = True) -> list[np.ndarray] | list[Tensor]:
        """Computes the label maps of several views: see :meth:`forward_test`."""
        return self.forward_test(imgs, img_metas, rescale)

    def window_features(self, windows: Tensor | list[Tensor]) -> list[Tensor]:
        """Computes the feature maps (B, C, h, w) of windows (B, 3, H, W), with a neck's if any."""
        return self.extract_feat(windows)

    def head_logits(self, features: list[Tensor], metas: list) -> Tensor:
        """Computes the logits (B, K, h, w) of feature maps, in the way of any head of mmseg."""
        return self._decode_head_forward_test(features, metas)
