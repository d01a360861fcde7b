"""The model zoo: one file a family, pure Flax Linen modules that know no data and no loss."""

# A family registers itself when its file is imported.
from imgrec.models import airbench as _airbench  # noqa: F401
from imgrec.models import cnn as _cnn  # noqa: F401
from imgrec.models import convnext as _convnext  # noqa: F401
from imgrec.models import densenet as _densenet  # noqa: F401
from imgrec.models import efficientnet as _efficientnet  # noqa: F401
from imgrec.models import efficientnet_v2 as _efficientnet_v2  # noqa: F401
from imgrec.models import imagenet_resnet as _imagenet_resnet  # noqa: F401
from imgrec.models import lenet as _lenet  # noqa: F401
from imgrec.models import mlp_mixer as _mlp_mixer  # noqa: F401
from imgrec.models import mobilenet_v2 as _mobilenet_v2  # noqa: F401
from imgrec.models import mobilenet_v3 as _mobilenet_v3  # noqa: F401
from imgrec.models import preact_resnet as _preact_resnet  # noqa: F401
from imgrec.models import resnet as _resnet  # noqa: F401
from imgrec.models import swin as _swin  # noqa: F401
from imgrec.models import vgg as _vgg  # noqa: F401
from imgrec.models import vit as _vit  # noqa: F401
from imgrec.models import wrn as _wrn  # noqa: F401
from imgrec.models.cost import cost_of, count_parameters, flops
from imgrec.models.depth import Layers, layers
from imgrec.models.features import intermediates
from imgrec.models.registry import (
    Description,
    Family,
    ImageShape,
    check,
    create,
    describe,
    list_models,
    register,
)
from imgrec.models.stacking import portable

__all__ = [
    "Description",
    "Family",
    "ImageShape",
    "Layers",
    "check",
    "cost_of",
    "count_parameters",
    "create",
    "describe",
    "flops",
    "intermediates",
    "layers",
    "list_models",
    "portable",
    "register",
]
