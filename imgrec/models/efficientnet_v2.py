"""EfficientNetV2-S: EfficientNet with fused blocks in front, where depthwise ones are slow.

Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training", table 4,
https://arxiv.org/abs/2104.00298.

As with EfficientNet, weights of the authors' release need TensorFlow's padding, the default;
torchvision's need padding="half". Both normalise with epsilon 1e-3.
"""

from imgrec.models.efficientnet import EfficientNet, Stage, check
from imgrec.models.registry import Family, register

_S = (
    Stage(3, 1, 24, 2, 1, fused=True),
    Stage(3, 4, 48, 4, 2, fused=True),
    Stage(3, 4, 64, 4, 2, fused=True),
    Stage(3, 4, 128, 6, 2),
    Stage(3, 6, 160, 9, 1),
    Stage(3, 6, 256, 15, 2),
)

register(
    Family(
        name="efficientnet_v2",
        summary="EfficientNet with fused blocks in its first stages",
        paper="Tan and Le 2021, https://arxiv.org/abs/2104.00298",
        pattern="efficientnet_v2_s",
        module=EfficientNet,
        fields=lambda: {
            "stem": 24,
            "stages": _S,
            "final": 1280,
            "activation": "swish",
            "norm_momentum": 0.9,
        },
        # The paper prints 22M; torchvision and timm count so.
        variants={"efficientnet_v2_s": "21,458,488"},
        image_shape=(384, 384, 3),
        num_classes=1000,
        dense_convolutions=False,
        check=check,
    )
)
