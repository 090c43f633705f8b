"""Steps along orthogonalised momenta."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from netprior_core.muon import ENTRY, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (24, 4, 1, 1)])
def test_orthogonalised_momenta_have_their_directions_and_one_size(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = shape[0], shape[1] * shape[2] * shape[3]
    u, _ = torch.linalg.qr(torch.randn((rows, rows), generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn((columns, columns), generator=generator, dtype=torch.float64))
    rank = min(rows, columns)
    weak = torch.logspace(0, -2, rank, dtype=torch.float64)
    found = orthogonalised((u[:, :rank] * weak @ v[:, :rank].T).reshape(shape))
    assert found.shape == shape
    inside = u[:, :rank].T @ found.reshape(rows, columns) @ v[:, :rank] / (0.2 * max(rows, columns) ** 0.5)
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-9)
    assert float(inside.diagonal().min()) > 0.5
    assert float(inside.diagonal().max()) < 1.3
    torch.testing.assert_close(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))


def _descend(network: nn.Module, muon: Muon, steps: int, share: float = 1.0) -> float:
    x = torch.randn((4, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        network.zero_grad()
        loss = (network(x) - x[:, :2, 1:-1, 1:-1]).square().mean()
        loss.backward()
        muon.step(share)
    return float(loss.detach())


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_first_step_moves_each_parameter_by_its_rate(share: float) -> None:
    network = _network()
    before = copy.deepcopy(network)
    _descend(network, Muon(network.parameters(), 0.01, other_rate=0.002), 1, share)
    for old, new in zip(before.parameters(), network.parameters(), strict=True):
        move = (new - old).detach()
        if new.dim() == 1 and float(new.grad.abs().min()) > 1e-6:  # type: ignore[union-attr]
            torch.testing.assert_close(move.abs(), torch.full_like(move, 0.002 * share), rtol=1e-2, atol=0)
        elif new.dim() > 1:
            wanted = orthogonalised(new.grad)  # type: ignore[arg-type]
            torch.testing.assert_close(move, -0.01 * share * wanted, rtol=0.02, atol=1e-4 * share)
            size = float(move.flatten(1).norm() / min(move.flatten(1).shape) ** 0.5)
            assert size == pytest.approx(0.01 * share * ENTRY * max(move.flatten(1).shape) ** 0.5, rel=0.35)


def test_it_descends_and_goes_on_from_its_state() -> None:
    network = _network()
    muon = Muon(network.parameters(), 0.01, other_rate=0.01)
    first = _descend(network, muon, 1)
    assert _descend(network, muon, 30) < 0.5 * first
    other = copy.deepcopy(network)
    later = Muon(other.parameters(), 0.01, other_rate=0.01)
    later.load_state_dict(copy.deepcopy(muon.state_dict()))
    assert _descend(network, muon, 5) == _descend(other, later, 5)


def test_parameters_may_all_be_of_one_kind() -> None:
    for shape in ((4, 3), (5,)):
        weight = torch.ones(shape, requires_grad=True)
        muon = Muon([weight], 0.1, other_rate=0.1)
        for _ in range(3):
            weight.grad = None
            weight.square().sum().backward()
            muon.step()
        assert float(weight.detach().sum()) < weight.numel()
