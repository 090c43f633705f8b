"""Educated Deep Image Prior: the network knows its trade before it sees the measurement."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch

from netprior_core import priors
from netprior_core.compute import Precision, choose, precision_setting
from netprior_core.errors import MissingPrior
from netprior_core.methods._common import due, finite, squares, total_variation
from netprior_core.methods._start import start_setting
from netprior_core.methods.base import Method
from netprior_core.networks.edip import EducatedUNet, by_channel
from netprior_core.networks.seeded import seeded
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: Part of every key: raised when the meaning of the weights changes, so that older files are not found any more.
RECIPE = 1
#: The network of the shipped files, narrower than the released one (``EducatedUNet``'s defaults) to stay below 1.5 MiB.
SHIPPED_NETWORK: dict[str, Any] = {"width": 48, "scales": 5, "skips": [0, 8, 8, 8, 8]}
SMALLEST_SIDE = 8
Start = Literal["random", "educated"]


#: Operators of the presets that are for some only.
SUITED = {
    "ours": ("tomography", "super-resolution", "deblurring", "fourier"),
    "noisy pictures": ("denoising", "compressed-sensing", "designed-sensing", "phase-retrieval"),
}


class EducatedDIP(Method):
    """Educated DIP: a network taught on pairs of picture and measurement, then fitted to one measurement as in Deep Image Prior.

    Step 1, done once (``train edip``): min over θ of Σ ‖f(A†y_i; θ) − x_i‖². Step 2, here, from those weights: min over θ of ‖A
    f(z; θ) − y‖² + γ TV(f(z; θ)), z = A†y the first picture (``initial``), TV anisotropic, misfit and TV summed; Adam, gradient
    clipped to norm 1; the iterate of least objective is returned (Barbano et al. 2021). Iteration 0 shows the educated network's
    own answer, before any step.

    Two sets of weights are shipped: phantoms seen by CT for tomography, patches of photographs for all other operators. Their
    network is narrower than the released one, with a skip branch of 8 channels at every scale (released: 4, at the two coarsest),
    and was taught for minutes, not days: their cards say how long. A colour picture goes through as three grey ones with the same
    weights. "random" is the same network, untrained, on the same z: the control of the paper.

    "released γ, our objective": the released reconstructor has γ = 1e-4, too, but beside the mean of its squared misfit, of ray
    sums in a unit of its own. The mean of ours with that γ is all TV: 15.3 dB on Shepp-Logan (64×64, 30 views, 5% noise), where
    the sum ends at 29.3. Were its rays measured in pixels, the two would differ by m over the squared side alone, two thirds
    there. The other presets are ours. "ours", γ = 1e-3, for tomography was chosen on two phantoms of 128×128 (60 views, 5% noise):
    100 steps end at 29.7 and 30.6 dB, with γ = 1e-4 at 29.0 and 25.0; it keeps what the educated network knew (30.3 and 30.7).
    "untrained, as a control" is "ours" from random weights. On photographs γ was chosen among 0.001, 0.005, 0.02, 0.06 and 0.2 on
    two pictures of 96×96, 50 steps (dB of z → own answer → fitted): 1e-3 for super-resolution (22.6 → 22.7 → 22.9), deblurring
    (21.5 → 21.9 → 23.0) and Fourier measurements (22.5 → 22.6 → 22.6), where there is little noise; 0.02, "pictures", for
    inpainting (9.0 → 20.9 → 23.2); 0.06, "noisy pictures", for denoising (20.5 → 24.2 → 25.7) and compressed sensing (7.0 → 16.7 →
    18.1).
    """

    title: ClassVar[str] = "Educated DIP"
    family: ClassVar[str] = "Learned from many"
    order: ClassVar[int] = 40
    citation: ClassVar[str] = (
        "R. Barbano, J. Leuschner, M. Schmidt, A. Denker, A. Hauptmann, P. Maaß, B. Jin, Is Deep Image Prior in Need of a Good "
        "Education?, 2021"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "released γ, our objective": {},
        "live": {"iterations": 300},
        "ours": {"tv_weight": 1e-3},
        "pictures": {"tv_weight": 0.02},
        "noisy pictures": {"tv_weight": 0.06},
        "untrained, as a control": {"start": "random", "tv_weight": 1e-3},
    }

    kind: Literal["edip"] = "edip"
    start: Start = start_setting("educated", "random", "educated")
    iterations: int = setting(
        1000, "Stop after so many steps of Adam; 0 shows the educated answer alone.", ge=0, le=50_000, main=True
    )
    tv_weight: float = setting(1e-4, "Weight γ of the total variation.", ge=0, le=100, label="TV weight", main=True)
    learning_rate: float = setting(1e-4, "Step size of Adam.", ge=1e-7, le=1.0, log=True)
    clip: float = setting(1.0, "Largest norm of the gradient; longer ones are shortened.", ge=1e-6, le=1e6, log=True)
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> EducatedDIP:
        name = next((name for name, kinds in SUITED.items() if operator.kind in kinds), "pictures")
        return type(self).preset(name, start=self.start, precision=self.precision)

    def accepts(self, problem: Problem) -> str | None:
        reason = super().accepts(problem)
        if reason is not None:
            return reason
        if min(problem.shape[1:]) < SMALLEST_SIDE:
            return f"{self.title}: its network needs pictures of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels."
        task = task_of(problem.operator)
        if self.start == "educated" and key_of_task(task) not in priors.shipped():
            return (
                f"{self.title}: the shipped prior edip-{task}.safetensors is missing from the folder checkpoints. Fetch it again, "
                f"make it with 'python -m netprior_core train edip --task {task}', or start from random weights."
            )
        return None

    def _prepare(self, problem: Problem, seed: int) -> Generator[Step, None, priors.Prior | None]:
        if self.start == "random":
            return None
        path = priors.shipped().get(key_of_task(task_of(problem.operator)))
        if path is None:
            raise MissingPrior(f"{self.title}: the shipped prior is missing.")
        return priors.load(path)
        yield  # a generator without steps: reading the file takes milliseconds

    def _network(self, prior: priors.Prior | None, seed: int) -> EducatedUNet:
        if prior is None:
            return seeded(lambda: EducatedUNet(**SHIPPED_NETWORK), seed)
        try:
            with torch.device("meta"):  # without drawing weights that are replaced at once
                network = EducatedUNet(**prior.card["settings"])
        except (KeyError, TypeError, ValueError):
            raise MissingPrior(f"{self.title}: the shipped prior does not say its network. Fetch it again.") from None
        network = network.to_empty(device="cpu")
        prior.load_into(network)
        return network

    def _solve(self, problem: Problem, seed: int, prepared: priors.Prior | None) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        network = compute.module(self._network(prepared, seed))
        first = problem.model.initial(problem.measurement).detach()
        z = compute.activations(by_channel(first.float()))
        parameters = list(network.parameters())
        adam = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        least = torch.full((), torch.inf, device=compute.device)
        at, best = torch.zeros((), dtype=torch.int64, device=compute.device), first
        for iteration in range(self.iterations + 1):
            image = network(z).reshape(first.shape)
            misfit = squares(problem.model.forward(image) - problem.measurement).sum()
            loss = misfit + self.tv_weight * total_variation(image) if self.tv_weight else misfit
            if due(iteration, self.iterations) or iteration == 0:
                finite(loss, self.title, iteration)
            output, value = image.detach(), loss.detach()
            better = value < least  # stays on the device: reading it at every iteration would make the processor wait
            least, best = torch.where(better, value, least), torch.where(better, output, best)
            at = torch.where(better, iteration, at)
            yield Step(iteration, self.iterations, "solve", output, best, value[None])
            if iteration < self.iterations:
                adam.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, self.clip, foreach=True)
                adam.step()
        yield Step(self.iterations, self.iterations, "result", output, best, least[None], info={"returns": int(at)})


def task_of(operator: Any) -> str:
    """Which of the two shipped priors knows the first pictures of this operator."""
    return "tomography" if operator.kind == "tomography" else "patches"


def key_of_task(task: str) -> str:
    """The key that the shipped prior of a task is found by."""
    return priors.key_of(None, method="edip", task=task, recipe=RECIPE)
