"""MetaDIP's start: meta-learned on denoising faces after the published recipe, or on mixed tasks."""

from __future__ import annotations

import argparse

import torch

from netprior_core.device import pick_device
from netprior_core.networks.metadip import MetaUNet, noise_map
from netprior_core.networks.seeded import seeded
from netprior_core.training._meta_data import Measured, Tasks
from netprior_core.training._meta_loop import Recipe, train
from netprior_core.training._meta_loop import add_arguments as _shared

SUMMARY = "meta-learn the start of MetaDIP (faces at σ = 25, or --mixed) and write checkpoints/metadip-*.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _shared(parser)
    parser.add_argument("--mixed", action="store_true", help="several operators, noise levels, faces and natural patches")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 32, 64, 64], help="channels of each scale")
    parser.add_argument("--noise", type=int, default=32, help="channels of the noise map")
    parser.add_argument("--skip", type=int, default=32, help="channels of the skip branches")
    parser.add_argument("--first", action="store_true", help="the network also sees the first picture of the measurement (ours)")


def recipe(widths: list[int], noise: int, skip: int, mixed: bool, seed: int, *, first: bool = False) -> Recipe:
    """What is trained. The network starts from random weights, its noise map belongs to the checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    network = seeded(lambda: MetaUNet(widths, noise=noise, skip=skip, first=first), generator)
    network.noise.copy_(noise_map(len(network.noise), generator))
    card = {
        "title": "MetaDIP, mixed tasks (ours)" if mixed else "MetaDIP, faces at σ = 25",
        "network": "MetaUNet",
        "widths": widths,
        "noise": noise,
        "skip": skip,
        **({"first": True} if first else {}),
        "data": "2900 faces of Labeled Faces in the Wild, 128×128" + (", and 180 pictures of BSDS500 (train)" if mixed else ""),
        "terms": "LFW: research use" + ("; BSDS500: non-commercial research" if mixed else ""),
    }

    def z(found: Measured, corner: tuple[int, int]) -> torch.Tensor:
        height, width = found.clean.shape[-2:]
        return network.input(height, width, corner, found.first)

    return Recipe(
        "metadip",
        "mixed" if mixed else "faces σ = 25",
        f"metadip-{'mixed' if mixed else 'faces'}.safetensors",
        network,
        z,
        lambda output: output,
        first_rate=0.7,
        learn_rates=True,
        outer_rate=3e-4 if mixed else 1e-3,
        card=card,
        options=add_arguments,
    )


def run(options: argparse.Namespace) -> None:
    """Train and write the weights."""
    device = pick_device(options.device)
    tasks = Tasks(options.data, side=options.size, mixed=options.mixed, seed=options.seed, device=device)
    made = recipe(options.widths, options.noise, options.skip, options.mixed, options.seed, first=options.first)
    train(made, tasks, options)
