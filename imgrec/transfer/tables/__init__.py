"""The namings known for each family of models, one file a family."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from imgrec.errors import UserError, unknown
from imgrec.models import ImageShape
from imgrec.models.convnext import ConvNeXt
from imgrec.models.densenet import DenseNet
from imgrec.models.efficientnet import EfficientNet
from imgrec.models.imagenet_resnet import ResNet
from imgrec.models.mlp_mixer import MLPMixer
from imgrec.models.mobilenet_v2 import MobileNetV2
from imgrec.models.mobilenet_v3 import MobileNetV3
from imgrec.models.preact_resnet import PreActivationResNet
from imgrec.models.resnet import CifarResNet
from imgrec.models.swin import SwinTransformer
from imgrec.models.vgg import VGG
from imgrec.models.vit import VisionTransformer
from imgrec.models.wrn import WideResNet
from imgrec.transfer.mapping import Table
from imgrec.transfer.tables import (
    cifar_resnet,
    convnext,
    densenet,
    efficientnet,
    imagenet_resnet,
    mlp_mixer,
    mobilenet,
    preact_resnet,
    swin,
    vgg,
    vit,
    wrn,
)

# A family's tables are functions of its module and the shape of the images, since depth,
# options and the grid of patches decide what there is to name. None: that naming has no such
# network.
_TABLES: Mapping[type[nn.Module], tuple[Callable[[Any, ImageShape], Table | None], ...]] = {
    CifarResNet: (cifar_resnet.akamaster,),
    ConvNeXt: (convnext.timm, convnext.facebook, convnext.torchvision, convnext.huggingface),
    DenseNet: (densenet.torchvision,),
    EfficientNet: (efficientnet.timm, efficientnet.torchvision, efficientnet.lukemelas),
    MLPMixer: (mlp_mixer.timm, mlp_mixer.big_vision),
    MobileNetV2: (mobilenet.v2_timm, mobilenet.v2_torchvision, mobilenet.v2_huggingface),
    MobileNetV3: (mobilenet.v3_timm, mobilenet.v3_torchvision),
    PreActivationResNet: (preact_resnet.timm,),
    ResNet: (imagenet_resnet.timm, imagenet_resnet.huggingface),
    SwinTransformer: (swin.timm, swin.microsoft, swin.torchvision, swin.huggingface),
    VGG: (vgg.torchvision, vgg.timm),
    VisionTransformer: (
        vit.timm,
        vit.torchvision,
        vit.huggingface,
        vit.big_vision,
        vit.vision_transformer,
    ),
    WideResNet: (wrn.xternalz,),
}


def known(module: nn.Module, image_shape: ImageShape) -> tuple[Table, ...]:
    """The tables of a model in every naming there is.

    Raises:
      UserError: there is none.
    """
    if type(module) not in _TABLES:
        families = ", ".join(sorted(kind.__name__ for kind in _TABLES))
        raise UserError(
            f"no foreign naming is known for a {type(module).__name__}, only for {families}. "
            "The folder of a run of this project can give it weights."
        )
    made = (make(module, image_shape) for make in _TABLES[type(module)])
    tables = tuple(table for table in made if table is not None)
    if not tables:
        raise UserError(
            f"no foreign naming is known for a {type(module).__name__} with these options, which "
            "none of the other projects has. The folder of a run of this project can give it "
            "weights."
        )
    return tables


def named(module: nn.Module, image_shape: ImageShape, naming: str) -> Table:
    """The table of a model in one naming ("timm").

    Raises:
      UserError: the model is not known by that naming.
    """
    tables = {
        name: table for table in known(module, image_shape) for name in (table.naming, *table.also)
    }
    if naming not in tables:
        raise unknown(f"naming of {type(module).__name__}", naming, tables)
    return tables[naming]
