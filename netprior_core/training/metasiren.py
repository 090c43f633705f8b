"""MetaSIREN's start: MetaDIP's recipe on a coordinate network, with one rate that is not learned."""

from __future__ import annotations

import argparse

import torch

from netprior_core.device import pick_device
from netprior_core.methods.metadip import siren
from netprior_core.networks.siren import coordinates
from netprior_core.training._meta_data import Tasks
from netprior_core.training._meta_loop import Recipe, train
from netprior_core.training._meta_loop import add_arguments as _shared

SUMMARY = "meta-learn the start of MetaSIREN on denoising faces at σ = 25 and write checkpoints/metasiren-faces.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _shared(parser)
    parser.add_argument("--width", type=int, default=128, help="units of every hidden layer")
    parser.add_argument("--layers", type=int, default=5, help="linear layers")
    parser.add_argument("--omega", type=float, default=30.0, help="factor before every sine")
    parser.add_argument("--rate", type=float, default=0.02, help="step size of the inner loop")


def recipe(width: int, layers: int, omega: float, rate: float, seed: int) -> Recipe:
    """What is trained. Coordinates are in image sides, so that another size samples the same picture."""
    card = {
        "title": "MetaSIREN, faces at σ = 25",
        "network": "SIREN",
        "width": width,
        "layers": layers,
        "omega": omega,
        "data": "2900 faces of Labeled Faces in the Wild, 128×128",
        "terms": "LFW: research use",
    }
    network = siren(card, torch.Generator().manual_seed(seed))
    return Recipe(
        "metasiren",
        "faces σ = 25",
        "metasiren-faces.safetensors",
        network,
        lambda found, corner: coordinates(*found.clean.shape[-2:], signed=False),
        lambda output: output + 0.5,
        first_rate=rate,
        learn_rates=False,
        outer_rate=3e-4,
        card=card,
        options=add_arguments,
    )


def run(options: argparse.Namespace) -> None:
    """Train and write the weights."""
    tasks = Tasks(options.data, side=options.size, mixed=False, seed=options.seed, device=pick_device(options.device), whole=True)
    train(recipe(options.width, options.layers, options.omega, options.rate, options.seed), tasks, options)
