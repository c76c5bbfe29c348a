"""The FCN head, with the batch norm before the classifier that makes it a linear probe.

B batch, C channels, h w grid, K classes.
"""
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from torch import Tensor, nn

from .upsampled_loss import UpsampledLoss


class FCNHead(UpsampledLoss, MMSegFCNHead):
    """mmseg's FCN head (Long et al., 2015), and ``with_norm``.

    ``num_convs=0, concat_input=False, with_norm=True`` is linear probing: batch norm over the
    channels, then a 1x1 classifier.

    Args:
        num_convs: Number of convolutions before the classifier.
        kernel_size: Kernel size of these convolutions.
        concat_input: Whether the classifier reads the input beside the output of the convolutions.
        dilation: Dilation of these convolutions.
        with_norm: Whether a batch norm over the channels precedes the classifier: SyncBN, which is
            plain batch norm in a single process.
        **kwargs: Arguments of ``mmseg.models.decode_heads.decode_head.BaseDecodeHead``.
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
        """Feature maps [(B, C_i, h_i, w_i)] -> inputs of the classifier (B, channels, h, w)."""
        return self.norm(super()._forward_feature(inputs))
