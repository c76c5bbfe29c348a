"""What all decode heads here share: inputs, classifier, losses, and mmseg's names for all of it.

B images, C channels, K classes, h w grid of feature maps and logits, H W pixels of the labels.
"""
import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...layers.conv_module import RELU, ConvModule, is_of_torch
from ...layers.resize import resize_bilinear
from .head_loss import build_losses, build_sampler, head_losses, in_strips, pixel_losses

Options = dict[str, Any]
CROSS_ENTROPY = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
STD = 0.01  # of the classifier's initial weights
OF_CLASSIFIER = dict(type='Normal', std=STD, override=dict(name='conv_seg'))
DEFAULT_THRESHOLD = 0.3  # mmseg's, of a single channel


class DecodeHead(nn.Module):
    """A head that turns feature maps into logits, and computes their losses.

    Arguments, attributes, parameter names and results are those of MMSegmentation 0.30's
    ``BaseDecodeHead``, in whose place it stands, but it needs neither mmseg nor mmcv: what only
    they have (losses, samplers, further layers and initialisations) is imported where a config asks
    for it. Plain cross-entropy is computed in strips, so that logits at full resolution never
    exist: see :mod:`.head_loss`. A class of a head defines ``forward``.

    Args:
        in_channels: C of the feature map; of each, where there are several.
        channels: C of the classifier's input.
        num_classes: K.
        out_channels: Channels of the logits; by default K, or 1 for two classes that a threshold
            tells apart.
        threshold: Probability from which a pixel has the second class, with a single channel.
        dropout_ratio: Share of the classifier's input channels that are dropped in training.
        conv_cfg: Type of convolution, as mmcv knows it; None for ``Conv2d``.
        norm_cfg: Type of norm behind convolutions; None for none.
        act_cfg: Type of activation behind convolutions; None for none.
        in_index: Position of the feature map among those of the backbone; several with an
            ``input_transform``.
        input_transform: ``'resize_concat'`` for several maps at the size of the first, as one;
            ``'multiple_select'`` for a list of them; None for a single one.
        loss_decode: Type and options of the loss, or several, whose values are added up where they
            have one ``loss_name``. None for a head that is not trained.
        ignore_index: Label of pixels without a loss; None where all count.
        sampler: Type and options of mmseg's choice of pixels, e.g. ``OHEMPixelSampler``.
        align_corners: Option of resizing maps and logits.
        init_cfg: Initialisation by mmcv's names, one or several.

    Attributes:
        takes_casts: Whether its convolutions may compute in bfloat16 (``head_precision``).
        fp16_enabled: Whether it computes under mmcv's mixed precision; its losses do not.

    Raises:
        InputError: If numbers of channels, positions and transform do not go together, or a loss is
            none.
    """
    in_channels: Any  # one number, or several with 'multiple_select'
    in_index: Any
    loss_decode: Any  # a module, a list of them, or None
    takes_casts = True

    def __init__(self, in_channels: int | Sequence[int], channels: int, *, num_classes: int,
                 out_channels: int | None = None, threshold: float | None = None,
                 dropout_ratio: float = 0.1, conv_cfg: Options | None = None,
                 norm_cfg: Options | None = None, act_cfg: Options | None = RELU,
                 in_index: int | Sequence[int] = -1, input_transform: str | None = None,
                 loss_decode: Options | Sequence[Options] | None = CROSS_ENTROPY,
                 ignore_index: int | None = 255, sampler: Options | None = None,
                 align_corners: bool = False,
                 init_cfg: Options | list[Options] | None = OF_CLASSIFIER):
        super().__init__()
        _check_inputs(in_channels, in_index, input_transform)
        self.in_channels = (sum(in_channels) if input_transform == 'resize_concat'
                            and isinstance(in_channels, Sequence) else in_channels)
        self.in_index, self.input_transform = in_index, input_transform
        self.channels, self.num_classes = channels, num_classes
        self.out_channels, self.threshold = _outputs(num_classes, out_channels, threshold)
        self.conv_cfg, self.norm_cfg, self.act_cfg = conv_cfg, norm_cfg, act_cfg
        self.dropout_ratio, self.ignore_index = dropout_ratio, ignore_index
        self.align_corners = align_corners
        self.init_cfg, self._is_init = copy.deepcopy(init_cfg), False
        self.loss_decode = build_losses(loss_decode)
        self.sampler = build_sampler(sampler, self)
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 1)
        self.dropout = nn.Dropout2d(dropout_ratio) if dropout_ratio > 0 else None
        self.fp16_enabled = False

    def extra_repr(self) -> str:
        """Returns the settings that its layers do not show."""
        return (f'input_transform={self.input_transform}, ignore_index={self.ignore_index}, '
                f'align_corners={self.align_corners}')

    def conv_module(self, in_channels: int, kernel_size: int, **options: Any) -> nn.Module:
        """Builds a convolution to ``channels``, with norm and activation of the head's types.

        Args:
            in_channels: C of its input.
            kernel_size: Kernel size in cells.
            **options: Further arguments of :class:`...layers.conv_module.ConvModule`.
        """
        types: dict[str, Any] = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg,
                                     act_cfg=self.act_cfg)
        if is_of_torch(**types):
            return ConvModule(in_channels, self.channels, kernel_size, **types, **options)
        from mmcv import cnn  # whose registries have further ones
        return cnn.ConvModule(in_channels, self.channels, kernel_size, **types, **options)

    def init_weights(self) -> None:
        """Initialises the weights by ``init_cfg``, then those of layers that do it themselves."""
        if self._is_init:
            warnings.warn(f'{type(self).__name__}: its weights are initialised already',
                          stacklevel=2)
            return
        if self.init_cfg == OF_CLASSIFIER:
            self.conv_seg.apply(_init_classifier)
        elif self.init_cfg:
            from mmcv.cnn import initialize
            initialize(self, self.init_cfg)
            if isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained':
                return
        for child in self.children():
            if hasattr(child, 'init_weights'):
                child.init_weights()
        self._is_init = True

    def forward_train(self, inputs: list[Tensor], img_metas: list[dict], gt_semantic_seg: Tensor,
                      train_cfg: dict | None) -> dict[str, Tensor]:
        """Computes the losses of a batch.

        Args:
            inputs: Feature maps [(B, C_i, h_i, w_i)] of the backbone.
            img_metas: Metas of the images; not used.
            gt_semantic_seg: Labels (B, 1, H, W).
            train_cfg: Not used.

        Returns:
            Losses by name, and the accuracy in percent as ``acc_seg``.
        """
        return self.losses(self(inputs), gt_semantic_seg)

    def forward_test(self, inputs: list[Tensor], img_metas: list[dict],
                     test_cfg: dict | None) -> Tensor:
        """Feature maps [(B, C_i, h_i, w_i)] -> logits (B, K, h, w)."""
        return self.forward(inputs)

    def cls_seg(self, feat: Tensor) -> Tensor:
        """Applies dropout and classifier: (B, channels, h, w) -> (B, K, h, w)."""
        if self.dropout is not None:
            feat = self.dropout(feat)
        return self.conv_seg(feat)

    def losses(self, seg_logit: Tensor, seg_label: Tensor) -> dict[str, Tensor]:
        """Computes loss and accuracy, under mmseg's names.

        Args:
            seg_logit: (B, K, h, w).
            seg_label: (B, 1, H, W).

        Raises:
            InputError: If the head has no loss.
        """
        if in_strips(self):
            loss, accuracy = head_losses(self, seg_logit, seg_label)
            return {self.loss_decode.loss_name: loss, 'acc_seg': accuracy}
        if not self.fp16_enabled:
            return pixel_losses(self, seg_logit, seg_label)
        with torch.autocast(seg_logit.device.type, enabled=False):
            return pixel_losses(self, seg_logit.float(), seg_label)

    def _transform_inputs(self, inputs: list[Tensor]) -> Any:
        """Chooses the feature maps that the head reads.

        Args:
            inputs: Feature maps [(B, C_i, h_i, w_i)] of the backbone.

        Returns:
            A list of them with ``input_transform='multiple_select'``, else one (B, in_channels, h,
            w).
        """
        if self.input_transform is None:
            return inputs[self.in_index]
        chosen = [inputs[i] for i in self.in_index]
        if self.input_transform == 'multiple_select':
            return chosen
        return torch.cat([resize_bilinear(x, chosen[0].shape[2:], self.align_corners)
                          for x in chosen], dim=1)


def _check_inputs(in_channels: int | Sequence[int], in_index: int | Sequence[int],
                  input_transform: str | None) -> None:
    """Compares numbers of channels, positions of maps, and transform.

    Raises:
        InputError: If they do not go together.
    """
    given = f'in_channels={in_channels}, in_index={in_index}, input_transform={input_transform!r}'
    if input_transform is None:
        if not isinstance(in_channels, int) or not isinstance(in_index, int):
            raise InputError(f'{given}: expected one number each for a single feature map; set '
                             "input_transform='multiple_select' for several")
    elif input_transform not in ('resize_concat', 'multiple_select'):
        raise InputError(f"{given}: expected 'resize_concat', 'multiple_select' or None")
    elif not (isinstance(in_channels, (list, tuple)) and isinstance(in_index, (list, tuple))
              and len(in_channels) == len(in_index)):
        raise InputError(f'{given}: expected a list each, of as many numbers')


def _outputs(num_classes: int, out_channels: int | None,
             threshold: float | None) -> tuple[int, float | None]:
    """Returns the channels of the logits, and the threshold of a single one.

    Raises:
        InputError: If they are neither K nor 1.
    """
    if out_channels is None:
        if num_classes == 2:
            warnings.warn('num_classes=2: a single channel tells two classes apart, too: '
                          'out_channels=1 with a threshold', stacklevel=3)
        out_channels = num_classes
    if out_channels not in (num_classes, 1):
        raise InputError(f'out_channels={out_channels} with num_classes={num_classes}: expected '
                         f'{num_classes}, or 1 for two classes that a threshold tells apart')
    if out_channels == 1 and threshold is None:
        warnings.warn(f'out_channels=1 without a threshold: {DEFAULT_THRESHOLD} is taken',
                      stacklevel=3)
        threshold = DEFAULT_THRESHOLD
    return out_channels, threshold


def _init_classifier(layer: nn.Module) -> None:
    """Draws the weights of a layer from a normal distribution; biases are 0."""
    if getattr(layer, 'weight', None) is not None:
        nn.init.normal_(layer.weight, std=STD)
    if getattr(layer, 'bias', None) is not None:
        nn.init.zeros_(layer.bias)
