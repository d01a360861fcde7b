"""Records of other projects' logits, which the tests of imgrec.transfer reproduce.

    pip install -e '.[parity]'
    python scripts/golden_logits.py              # lists the networks
    python scripts/golden_logits.py resnet50_timm

Writes tests/transfer/golden/NAME.json: names and shapes of the network's weights and its
logits for weights drawn from them (imgrec/transfer/golden.py says how).
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import golden_renamed
import numpy as np

from imgrec.transfer import golden

FOLDER = Path(__file__).parents[1] / "tests" / "transfer" / "golden"
CLASSES = 10
# The last are for networks whose gates each halve what passes.
GAINS = (2.0, 1.75, 1.5, 1.35, 1.2, 1.0, 0.7, 0.5, 0.35, 0.25, 2.2, 2.3, 2.4)


@dataclass(frozen=True)
class Network:
    """One of another project: the same as our `model`, built by `make()`."""

    model: str
    naming: str
    image_shape: tuple[int, int, int]
    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)


def timm(name: str, **arguments: Any) -> Callable[[], Any]:
    """A network of timm, for CLASSES classes."""
    return lambda: importlib.import_module("timm").create_model(
        name, num_classes=CLASSES, **arguments
    )


def torchvision(name: str, **arguments: Any) -> Callable[[], Any]:
    """A network of torchvision, for CLASSES classes."""
    return lambda: importlib.import_module("torchvision").models.get_model(
        name, weights=None, num_classes=CLASSES, **arguments
    )


def lukemelas(package: str, name: str) -> Callable[[], Any]:
    """A network of efficientnet-pytorch or of its kin, for CLASSES classes."""
    return lambda: importlib.import_module(package).EfficientNet.from_name(
        name, num_classes=CLASSES
    )


def torchvision_transformer() -> Any:
    """ViT-S/16, which torchvision has no name for, and which takes square images there."""
    return importlib.import_module("torchvision").models.VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=12,
        num_heads=6,
        hidden_dim=384,
        mlp_dim=1536,
        num_classes=CLASSES,
    )


def small(image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """What makes a transformer of transformers ViT-S/16."""
    return {
        "image_size": image_shape[:2],
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    }


def transformers(
    family: str, head: str = "ForImageClassification", **config: Any
) -> Callable[[], Any]:
    """A network of HuggingFace's transformers, for CLASSES classes, by the names in its files."""

    def make() -> Any:
        package = importlib.import_module("transformers")
        settings = getattr(package, f"{family}Config")(num_labels=CLASSES, **config)
        return golden_renamed.Filed(getattr(package, f"{family}{head}")(settings))

    return make


def released(respelled: golden_renamed.Respelled, name: str, **arguments: Any) -> Any:
    """A network of timm, for CLASSES classes, by the names in its authors' files."""
    return lambda: golden_renamed.Released(timm(name, **arguments)(), respelled)


def written(name: str) -> Callable[[], Any]:
    """A network of scripts/golden_networks.py, for CLASSES classes."""
    return lambda: getattr(importlib.import_module("golden_networks"), name)(CLASSES)


def narrow_vgg(package: str, hidden: int) -> Any:
    """VGG-16 with dense layers so narrow that most of its 138 million weights are gone."""
    from torch import nn

    if package == "torchvision":
        network = torchvision("vgg16_bn")()
        network.classifier[0] = nn.Linear(512 * 7 * 7, hidden)
        network.classifier[3] = nn.Linear(hidden, hidden)
        network.classifier[6] = nn.Linear(hidden, CLASSES)
        return network
    network = timm("vgg16_bn")()
    network.pre_logits.fc1 = nn.Conv2d(512, hidden, 7)
    network.pre_logits.fc2 = nn.Conv2d(hidden, hidden, 1)
    network.head.fc = nn.Linear(hidden, CLASSES)
    return network


LARGE = (64, 96, 3)
SMALL = (24, 32, 3)
RESNET_D = {"stem": "deep", "shortcut": "mean"}

NETWORKS = {
    "resnet18_torchvision": Network("resnet18", "torchvision", LARGE, torchvision("resnet18")),
    "resnet50_timm": Network("resnet50", "timm", LARGE, timm("resnet50")),
    "resnet50_torchvision": Network("resnet50", "torchvision", LARGE, torchvision("resnet50")),
    "resnet50_transformers": Network("resnet50", "transformers", LARGE, transformers("ResNet")),
    "resnet50d_timm": Network("resnet50", "timm", LARGE, timm("resnet50d"), RESNET_D),
    "resnetblur50d_timm": Network(
        "resnet50", "timm", LARGE, timm("resnetblur50d"), {**RESNET_D, "anti_aliased": True}
    ),
    "seresnet50_timm": Network("resnet50", "timm", LARGE, timm("seresnet50"), {"attention": "se"}),
    "resnext50_32x4d_timm": Network("resnext50_32x4d", "timm", LARGE, timm("resnext50_32x4d")),
    "preact_resnet50_timm": Network("preact_resnet50", "timm", LARGE, timm("resnetv2_50")),
    "resnet20_akamaster": Network(
        "resnet20", "akamaster/pytorch_resnet_cifar10", SMALL, written("resnet20")
    ),
    "wrn28_4_xternalz": Network(
        "wrn28_4", "xternalz/WideResNet-pytorch", SMALL, written("wrn28_4")
    ),
    "densenet121_torchvision": Network(
        "densenet121", "torchvision", LARGE, torchvision("densenet121")
    ),
    "vgg16_bn_torchvision": Network(
        "vgg16_bn", "torchvision", LARGE, lambda: narrow_vgg("torchvision", 64), {"hidden": 64}
    ),
    "vgg16_bn_timm": Network(
        "vgg16_bn", "timm", LARGE, lambda: narrow_vgg("timm", 64), {"hidden": 64}
    ),
    "mobilenet_v2_timm": Network("mobilenet_v2", "timm", LARGE, timm("mobilenetv2_100")),
    "mobilenet_v2_torchvision": Network(
        "mobilenet_v2", "torchvision", LARGE, torchvision("mobilenet_v2")
    ),
    "mobilenet_v2_transformers": Network(
        "mobilenet_v2",
        "transformers",
        LARGE,
        transformers("MobileNetV2"),
        {"padding": "same", "norm_epsilon": 1e-3},
    ),
    "mobilenet_v3_large_timm": Network(
        "mobilenet_v3_large",
        "timm",
        LARGE,
        timm("mobilenetv3_large_100"),
        {"norm_epsilon": 1e-5},
    ),
    "mobilenet_v3_large_torchvision": Network(
        "mobilenet_v3_large", "torchvision", LARGE, torchvision("mobilenet_v3_large")
    ),
    "mobilenet_v3_small_timm": Network(
        "mobilenet_v3_small",
        "timm",
        LARGE,
        timm("tf_mobilenetv3_small_100"),
        {"padding": "same"},
    ),
    "mobilenet_v3_small_torchvision": Network(
        "mobilenet_v3_small", "torchvision", LARGE, torchvision("mobilenet_v3_small")
    ),
    "efficientnet_lite0_package": Network(
        "efficientnet_lite0",
        "lukemelas/EfficientNet-PyTorch",
        LARGE,
        lukemelas("efficientnet_lite_pytorch", "efficientnet-lite0"),
    ),
    "efficientnet_lite0_timm": Network(
        "efficientnet_lite0",
        "timm",
        LARGE,
        timm("efficientnet_lite0"),
        {"padding": "half", "norm_epsilon": 1e-5},
    ),
    "efficientnet_lite0_tf_timm": Network(
        "efficientnet_lite0", "timm", LARGE, timm("tf_efficientnet_lite0")
    ),
    "efficientnet_b0_tf_timm": Network(
        "efficientnet_b0", "timm", LARGE, timm("tf_efficientnet_b0")
    ),
    "efficientnet_b0_timm": Network(
        "efficientnet_b0",
        "timm",
        LARGE,
        timm("efficientnet_b0"),
        {"padding": "half", "norm_epsilon": 1e-5},
    ),
    "efficientnet_b0_torchvision": Network(
        "efficientnet_b0",
        "torchvision",
        LARGE,
        torchvision("efficientnet_b0"),
        {"padding": "half", "norm_epsilon": 1e-5},
    ),
    "efficientnet_b0_lukemelas": Network(
        "efficientnet_b0",
        "lukemelas/EfficientNet-PyTorch",
        LARGE,
        lukemelas("efficientnet_pytorch", "efficientnet-b0"),
    ),
    "efficientnet_v2_s_tf_timm": Network(
        "efficientnet_v2_s", "timm", LARGE, timm("tf_efficientnetv2_s")
    ),
    "efficientnet_v2_s_torchvision": Network(
        "efficientnet_v2_s",
        "torchvision",
        LARGE,
        torchvision("efficientnet_v2_s"),
        {"padding": "half"},
    ),
    "convnext_atto_timm": Network("convnext_atto", "timm", LARGE, timm("convnext_atto")),
    "convnext_tiny_timm": Network("convnext_tiny", "timm", LARGE, timm("convnext_tiny")),
    "convnext_tiny_facebook": Network(
        "convnext_tiny",
        "facebookresearch/ConvNeXt",
        LARGE,
        released(
            (
                (r"^stem\.", "downsample_layers.0."),
                (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
                (r"\.blocks\.", "."),
                ("conv_dw", "dwconv"),
                (r"mlp\.fc", "pwconv"),
                (r"^head\.norm\.", "norm."),
                (r"^head\.fc\.", "head."),
            ),
            "convnext_tiny",
        ),
    ),
    "convnext_tiny_torchvision": Network(
        "convnext_tiny", "torchvision", LARGE, torchvision("convnext_tiny")
    ),
    "convnext_tiny_transformers": Network(
        "convnext_tiny",
        "transformers",
        LARGE,
        transformers("ConvNext"),
    ),
    "mixer_b16_timm": Network("mixer_b16", "timm", LARGE, timm("mixer_b16_224", img_size=(64, 96))),
    "swin_t_timm": Network(
        "swin_t",
        "timm",
        (128, 128, 3),
        timm("swin_tiny_patch4_window7_224", img_size=128, window_size=4),
        {"window_size": 4},
    ),
    "swin_t_microsoft": Network(
        "swin_t",
        "microsoft/Swin-Transformer",
        (128, 128, 3),
        released(
            (
                (r"^layers\.1\.downsample", "layers.0.downsample"),
                (r"^layers\.2\.downsample", "layers.1.downsample"),
                (r"^layers\.3\.downsample", "layers.2.downsample"),
                (r"^head\.fc\.", "head."),
            ),
            "swin_tiny_patch4_window7_224",
            img_size=128,
            window_size=4,
        ),
        {"window_size": 4},
    ),
    # Its last maps are smaller than a window, and windows tile none of its maps.
    "swin_t_torchvision": Network("swin_t", "torchvision", LARGE, torchvision("swin_t")),
    "swin_t_transformers": Network(
        "swin_t",
        "transformers",
        (128, 128, 3),
        transformers("Swin", image_size=128, window_size=4),
        {"window_size": 4},
    ),
    "deit_s16_timm": Network(
        "deit_s16", "timm", LARGE, timm("deit_small_patch16_224", img_size=(64, 96))
    ),
    "deit_s16_distilled_timm": Network(
        "deit_s16_distilled",
        "timm",
        LARGE,
        timm("deit_small_distilled_patch16_224", img_size=(64, 96)),
    ),
    "deit_s16_distilled_transformers": Network(
        "deit_s16_distilled",
        "transformers",
        LARGE,
        transformers("DeiT", "ForImageClassificationWithTeacher", **small(LARGE)),
    ),
    "vit_s16_timm": Network(
        "vit_s16",
        "timm",
        LARGE,
        timm("vit_small_patch16_224", img_size=(64, 96)),
        {"gelu": "erf"},
    ),
    "vit_ti16_qk_norm_timm": Network(
        "vit_ti16",
        "timm",
        LARGE,
        timm("vit_tiny_patch16_224", img_size=(64, 96), qk_norm=True),
        {"gelu": "erf", "qk_norm": True},
    ),
    "vit_s14_dinov2_timm": Network(
        "vit_s14",
        "timm",
        (56, 84, 3),
        timm("vit_small_patch14_reg4_dinov2", img_size=(56, 84)),
        {"gelu": "erf", "registers": 4, "layer_scale": 1e-5},
    ),
    "vit_ti16_gap_timm": Network(
        "vit_ti16",
        "timm",
        LARGE,
        timm(
            "vit_tiny_patch16_224",
            img_size=(64, 96),
            class_token=False,
            global_pool="avg",
            fc_norm=False,
        ),
        {"gelu": "erf", "pool": "mean"},
    ),
    "vit_s16_torchvision": Network(
        "vit_s16", "torchvision", (64, 64, 3), torchvision_transformer, {"gelu": "erf"}
    ),
    "vit_s16_transformers": Network(
        "vit_s16", "transformers", LARGE, transformers("ViT", **small(LARGE)), {"gelu": "erf"}
    ),
}


def main(names: list[str]) -> None:
    """Makes the records named."""
    if not names:
        print(*NETWORKS, sep="\n")
    for name in names:
        record = make(name)
        logits = np.array(record.logits)
        print(
            f"{name}: gain {record.gain}; logits reach {np.abs(logits).max():.3g}, and those of "
            f"two images differ by up to {np.ptp(logits, axis=0).max():.3g}"
        )
        record.write(FOLDER / f"{name}.json")


def make(name: str) -> golden.Golden:
    """The record of one network."""
    import torch

    network = NETWORKS[name]
    module = network.make().eval()
    state = module.state_dict()
    floats = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
    images = torch.from_numpy(golden.images(network.image_shape).transpose(0, 3, 1, 2).copy())
    # Logits that do not depend on the image, or that are huge, would prove little.
    for gain in GAINS:
        drawn = golden.weights(floats, gain)
        module.load_state_dict({**state, **{k: torch.from_numpy(v) for k, v in drawn.items()}})
        with torch.no_grad():
            found = module(images)
        logits = getattr(found, "logits", found).numpy()
        if np.abs(logits).max() < 10 and np.ptp(logits, axis=0).max() > 0.1:
            break
    else:
        raise SystemExit(f"{name}: no gain gives logits that say anything; the last gave {logits}")
    package = getattr(module, "package", type(module).__module__.partition(".")[0])
    packages = {"torch", package} - {"golden_networks"}
    return golden.Golden(
        model=network.model,
        options=network.options,
        naming=network.naming,
        image_shape=network.image_shape,
        gain=gain,
        floats=floats,
        integers={k: tuple(v.shape) for k, v in state.items() if k not in floats},
        logits=[[float(f"{value:.8g}") for value in row] for row in logits],
        command=f"python scripts/golden_logits.py {name}",
        versions={p: importlib.metadata.version(p) for p in sorted(packages)},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
