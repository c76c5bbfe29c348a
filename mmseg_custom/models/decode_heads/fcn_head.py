"""The FCN head, with the batch norm before the classifier that makes it a linear probe.

B batch, C channels, h w grid, K classes.
"""
from mmseg.models.builder import HEADS
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from torch import Tensor, nn

from .upsampled_loss import UpsampledLoss


@HEADS.register_module(force=True)
class FCNHead(UpsampledLoss, MMSegFCNHead):
    """mmseg's FCN head (Long et al., 2015), and ``with_norm``.

    ``num_convs=0, concat_input=False, with_norm=True`` is linear probing: batch norm over the
    channels, then a 1x1 classifier.

    Args:
        num_convs: Convolutions before the classifier.
        kernel_size: Of these convolutions.
        concat_input: Concatenate the input and the output of the convolutions.
        dilation: Of these convolutions.
        with_norm: A batch norm over the channels before the classifier: SyncBN, which is plain
            batch norm in a single process.
        **kwargs: Of ``mmseg.models.decode_heads.decode_head.BaseDecodeHead``.
    """

    def __init__(self, num_convs: int = 2, kernel_size: int = 3, concat_input: bool = True,
                 dilation: int = 1, with_norm: bool = False, **kwargs):
        # Without convolutions mmseg builds one all the same, and drops it: 92 million weights at
        # width 3200 and 3x3. At 1x1 that costs nothing.
        nothing_to_keep = num_convs == 0 and not concat_input
        super().__init__(num_convs, 1 if nothing_to_keep else kernel_size, concat_input, dilation,
                         **kwargs)
        self.norm = nn.SyncBatchNorm(self.channels) if with_norm else nn.Identity()

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Maps [(B, C_i, h_i, w_i)] -> features (B, channels, h, w), ready to classify."""
        return self.norm(super()._forward_feature(inputs))
