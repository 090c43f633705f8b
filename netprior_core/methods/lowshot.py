"""Low-shot priors: a generator pre-trained on a handful of example images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core import denoisers, priors
from netprior_core.compute import Compute, Precision, choose, precision_setting
from netprior_core.errors import MissingPrior
from netprior_core.methods._common import due, finite, signed_misfit, total_variation
from netprior_core.methods._shots import NAMES, Layers, Pretrained, ShotLoss, build, pretrain, untrained
from netprior_core.methods._start import start_setting
from netprior_core.methods.base import Method
from netprior_core.problem import Problem, Shape, Step, to_unit
from netprior_core.settings import setting

Start = Literal["random", "low-shot"]

#: Part of every key: raised when the meaning of the weights changes, so that older files are not found any more.
RECIPE = 1
#: Iterations between two looks of the denoiser, which takes time of its own.
_LOOK_EVERY = 4
#: At least so many examples stay when one is left out.
MIN_LEFT = 2

_PUBLISHED = {
    "channels": 64,
    "pretrain_iterations": 50_000,
    "latent_iterations": 1250,
    "mirror": False,
    "latent_jitter": 0.0,
    "batch": 0,
    "tv_weight": 0.0,
}
#: Chosen on CelebA faces 9,401 ff. at m/n = 0.05 and 0.1: most of the latent stage is lost once the weights move, while total
#: variation and larger steps of theirs gain dBs.
_OURS = {"latent_iterations": 200, "joint_iterations": 300, "joint_learning_rate": 3e-4}
#: Chosen on CelebA faces 9,411, 9,412 and 9,415 at m/n = 0.05: of widths 32, 64 and 96 the narrowest was as good in half the time.
_UPSAMPLING = {
    **_OURS,
    "layers": "upsampling",
    "batch": 10,
    "pretrain_iterations": 3000,
    "joint_learning_rate": 5e-4,
}
#: Chosen on CelebA faces 9,411 to 9,416 at m/n = 0.05, among weights 0.1 to 10 and σ 5 to 20. With a denoiser, total variation adds
#: nothing, and the longer joint stage still gains.
_DENOISED = {**_UPSAMPLING, "joint_iterations": 600, "tv_weight": 0.0, "denoiser_weight": 1.0}


class LowShot(Method):
    """Low-shot prior: pre-train a generator on the example images, then search its latent space, then refine latent and weights.

    Pre-training fits weights θ and one latent z_i per example jointly (ℓ2, eq. 4, or Gaussian-kernel MMD, eq. 5; Adam).
    Solving minimises ½ ‖A G(z; θ) − y‖² with images in [−1, 1]: first over z alone, starting from a draw of the Gaussian fitted to
    {ẑ_i}, then over z and θ. BatchNorm uses the statistics of all shots, fixed, while solving.

    Our defaults differ from the paper ("as published") to be useful within a minute: a narrower network, fewer iterations,
    mirrored examples, noise on the latents while pre-training (neighbouring latents then draw similar images) and some total
    variation while refining.

    From a "random" start no example is looked at: the same two stages with weights drawn at random and z ~ N(0, I), which is
    what the examples' share in the result is measured against.

    "ours" and what follows from it were chosen on compressed sensing. Colours need a longer search of the latent: in colorization
    "as published" is 5.6 dB better with the same prior (ten faces, ten shots).

    "ours, upsampling" has another generator (bilinear upsampling between convolutions), which keeps what was not learned smooth.
    "ours, denoised" also adds regularisation by denoising (RED; Romano, Elad, Milanfar 2017) to the joint stage:
    w/2 ‖G(z; θ) − D(G(z; θ))‖² with D, the small DRUNet, at a fixed noise level, held constant for a few iterations at a time. The
    denoiser was trained on photographs and on faces: beside the examples, this preset knows what pictures look like.

    "shipped" is what the priors of the embedded sets were made with: with these settings they start solving at once.

    The pre-trained network depends on the shots and the pre-training settings alone. It is kept on disk under a hash of both,
    so that a second run with the same shots starts solving at once.
    """

    title: ClassVar[str] = "Low-shot"
    family: ClassVar[str] = "Learned from examples"
    order: ClassVar[int] = 30
    needs_shots: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "O. Leong, W. Sakla, Low Shot Learning with Untrained Neural Networks for Imaging Inverse Problems, 2019"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "live": {},
        "live, MMD": {"loss": "mmd"},
        "shipped": {"channels": 16, "pretrain_iterations": 3000, "mirror": False},
        "as published": _PUBLISHED,
        "as published, MMD": {**_PUBLISHED, "loss": "mmd"},
        "ours": _OURS,
        "ours, upsampling": _UPSAMPLING,
        "ours, denoised": _DENOISED,
        "untrained, as a control": {"start": "random"},
    }

    kind: Literal["low-shot"] = "low-shot"
    prior: str = setting(
        "",
        "A prior that was learned before, in place of your examples: one of those shipped, or a file of yours.",
        max_length=80,
        widget="prior",
    )
    start: Start = start_setting("low-shot", "random", "low-shot")
    loss: ShotLoss = setting("l2", "l2: each latent draws its example. mmd: the drawn images as a set resemble the examples.")
    pretrain_iterations: int = setting(1500, "Steps of Adam on the examples.", ge=1, le=200_000, main=True, log=True)
    latent_iterations: int = setting(400, "Steps of Adam on the latent alone.", ge=0, le=20_000, log=True)
    joint_iterations: int = setting(350, "Steps of Adam on latent and weights.", ge=0, le=20_000, log=True)
    pretrain_learning_rate: float = setting(1e-3, "Step size of pre-training.", ge=1e-6, le=1.0, log=True)
    latent_learning_rate: float = setting(5e-2, "Step size of the latent stage.", ge=1e-6, le=1.0, log=True)
    joint_learning_rate: float = setting(1e-4, "Step size of the joint stage.", ge=1e-7, le=1.0, log=True)
    mirror: bool = setting(
        True,
        "Learn the mirror images of the examples too. Off for what has a left and a right, such as text.",
        label="Mirror images",
    )
    left_out: bool = setting(
        False,
        "Do not learn the last example, but watch how well the prior can draw it: a meter that needs no truth. Once it falls, "
        "press “Learned enough”. It takes three examples or more.",
        label="Leave one out",
        main=True,
    )
    latent_jitter: float = setting(1.0, "Standard deviation of the noise on the latents while pre-training.", ge=0, le=10)
    tv_weight: float = setting(0.02, "Weight of the total variation in the joint stage.", ge=0, le=100, label="TV weight")
    denoiser_weight: float = setting(
        0.0, "Weight of regularisation by denoising in the joint stage; 0 leaves the denoiser out.", ge=0, le=100
    )
    denoiser_sigma: float = setting(
        10.0, "σ of the noise that this denoiser is to remove, in 8-bit units.", ge=0.5, le=50, label="Denoiser σ"
    )
    batch: int = setting(32, "Examples visited at a time while pre-training; 0 takes all.", ge=0, le=1000)
    kernel_width: float = setting(
        0.0, "Width α of the MMD's kernel; 0 takes the median squared distance between the examples visited.", ge=0, le=1e9
    )
    latent: int = setting(128, "Length of a latent z.", ge=1, le=512)
    layers: Layers = setting(
        "dcgan",
        "The generator. dcgan: transposed convolutions, as published. upsampling: bilinear upsampling between convolutions, whose "
        "pictures are smoother where nothing was learned.",
        label="Generator",
    )
    channels: int = setting(32, "Width of the generator (of its last layer, for DCGAN's).", ge=4, le=128, label="Width")
    pretrain_seed: int = setting(0, "Seed of pre-training; the seed of the run leaves it alone.", ge=0, le=2**31 - 1)
    precision: Precision = precision_setting()

    def accepts(self, problem: Problem) -> str | None:
        if self.denoiser_weight and (missing := denoisers.get("neural").available()) is not None:
            return f"{self.title}: the denoiser is not here: {missing} Or set its weight to 0."
        if self.start == "random":
            return None
        if self.prior:
            try:
                self._chosen(problem.shape)
            except MissingPrior as error:
                return str(error)
            return None
        reason = super().accepts(problem)
        if reason is not None:
            return reason
        assert problem.shots is not None
        if tuple(problem.shots.shape[1:]) != tuple(problem.shape):
            have, want = ("×".join(map(str, s)) for s in (problem.shots.shape[1:], problem.shape))
            return f"{self.title}: the examples are {have} and the image is {want}. Make them the same size."
        if self.loss == "mmd" and len(problem.shots) < 2:
            return f"{self.title}: the MMD compares sets of images, so it needs at least two examples. Add one, or choose l2."
        if self.loss == "mmd" and self.batch == 1:
            return (
                f"{self.title}: the MMD compares sets of images, so a batch is at least two examples. Raise the batch to 2 or more."
            )
        return None

    def suited(self, operator: Any) -> LowShot:
        return self

    def examples(self, shots: torch.Tensor) -> torch.Tensor:
        """The images to learn: the shots but those left out, and their mirror images after them when ``mirror`` is set."""
        if self.left_out and len(shots) > MIN_LEFT:
            shots = shots[:-1]
        return torch.cat([shots, shots.flip(-1)]) if self.mirror else shots

    def key(self, shots: torch.Tensor) -> str:
        """Of the pre-trained network: a hash of the shots and of all settings that it depends on."""
        names = ("loss", "pretrain_iterations", "pretrain_learning_rate", "latent_jitter", "latent", "channels", "pretrain_seed")
        values = {name: getattr(self, name) for name in names}
        shots = self.examples(shots)
        values["batch"] = self._batch(len(shots))
        if self.loss == "mmd":
            values["kernel_width"] = self.kernel_width
            values["paired"] = True  # latents in the order of the examples, which older files do not have
        if self.layers != "dcgan":  # the only kind there was before
            values["layers"] = self.layers
        return priors.key_of(shots, recipe=RECIPE, method=self.kind, **values)

    def _batch(self, count: int) -> int:
        return 0 if self.batch >= count else self.batch

    def pretraining(
        self, shots: torch.Tensor, compute: Compute, *, enough: Callable[[], bool] = lambda: False, **state: Any
    ) -> Generator[Step, None, Pretrained]:
        """The prepare steps of pre-training on ``shots``; returns the network. ``state`` is ``resume`` and ``keep`` of pretrain."""
        examples = self.examples(shots)
        shown = len(examples) // (2 if self.mirror else 1)
        steps = pretrain(
            examples,
            compute,
            loss=self.loss,
            iterations=self.pretrain_iterations,
            learning_rate=self.pretrain_learning_rate,
            latent=self.latent,
            channels=self.channels,
            jitter=self.latent_jitter,
            batch=self._batch(len(examples)),
            kernel_width=self.kernel_width,
            seed=self.pretrain_seed,
            layers=self.layers,
            title=self.title,
            enough=enough,
            left_out=shots[shown:] if shown < len(shots) else None,
            **state,
        )
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                trained: Pretrained = stop.value
                return replace(trained, mirrored=self.mirror)
            assert step.output is not None
            yield replace(step, output=step.output[:shown])  # the mirror images are not shown

    def card(self, shots: torch.Tensor, steps: int = 0) -> dict[str, Any]:
        """What the file of a pre-trained network says of itself. ``steps``: how many were done, where learning was ended early."""
        count = len(self.examples(shots)) // (2 if self.mirror else 1)
        done = steps or self.pretrain_iterations
        of = "" if done == self.pretrain_iterations else f" of {self.pretrain_iterations:,}"
        return {
            "title": f"{count} example{'s' if count > 1 else ''}, {self.loss}, {done:,}{of} steps",
            "network": NAMES[self.layers],
            "shape": list(shots.shape[1:]),
            "shots": count,
            "steps": done,
            "seed": self.pretrain_seed,
            "settings": self.model_dump(),
        }

    def _prepare(self, problem: Problem, seed: int) -> Generator[Step, None, Pretrained | None]:
        if self.start == "random":
            return None
        compute = choose(self.precision, problem.device)
        if self.prior:
            chosen = self._chosen(problem.shape)
            yield from self._shown(chosen, problem.shape, compute)
            return chosen
        shots = problem.shots
        assert shots is not None
        key = self.key(shots)
        found = self._found(key, problem.shape, len(self.examples(shots)))
        if found is not None:
            drawn = self._drawn(found, found.examples, problem.shape, compute)
            n = self.pretrain_iterations
            info = {"note": "These examples were learned before.", "prior": key}
            yield Step(n, n, "prepare", drawn, None, None, "cached", info)
            return found
        steps = self.pretraining(shots, compute, enough=problem.enough.is_set)
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                trained: Pretrained = stop.value
                break
            if step.phase != "pre-trained":  # that one is the last, and says where the network is kept
                yield step
        done = trained.steps
        name = key if done == self.pretrain_iterations else f"{key}-{done}"  # ended early: not what the key stands for
        note = priors.remember(name, trained.tensors(), self.card(shots, done))
        info = {"prior": name} if note is None else {"note": note}
        if done < self.pretrain_iterations:
            early = f"Learning was ended early, after {done:,} of {self.pretrain_iterations:,} steps"
            info["note"] = f"{early}. {note}" if note else f"{early}: it can be chosen as “Prior”."
        yield replace(step, info=info)
        return trained

    def learned(self, shots: torch.Tensor | None, shape: Shape) -> Pretrained | None:
        """The network that these settings stand for: chosen, learned before or shipped; None when nothing was learned (yet).

        Raises MissingPrior when the chosen prior is not there or draws other images.
        """
        if self.start == "random":
            return None
        if self.prior:
            return self._chosen(shape)
        return None if shots is None or len(shots) < 1 else self._found(self.key(shots), shape, len(self.examples(shots)))

    def walk(self, trained: Pretrained, shape: Shape, start: int, end: int, steps: int = 8) -> torch.Tensor:
        """Images ``(steps, C, H, W)`` in [0, 1] along the line from one example's latent ẑ_start to another's; on the CPU."""
        compute = choose(self.precision, "cpu")
        share = torch.linspace(0, 1, steps)[:, None]
        return self._drawn(trained, (1 - share) * trained.examples[start] + share * trained.examples[end], shape, compute)

    def remembered(self, trained: Pretrained, shape: Shape, most: int) -> torch.Tensor:
        """The first ``most`` examples as the prior draws them ``(S, C, H, W)`` in [0, 1]; on the CPU."""
        return self._drawn(trained, trained.examples[:most], shape, choose(self.precision, "cpu"))

    def _shown(self, trained: Pretrained, shape: Shape, compute: Compute) -> Iterator[Step]:
        """What a chosen prior remembers: some of its examples as it draws them."""
        drawn = self._drawn(trained, trained.examples[:25], shape, compute)
        yield Step(1, 1, "prepare", drawn, None, None, "cached", {"note": f"Starts from the prior {self._name()}."})

    @torch.no_grad()
    def _drawn(self, trained: Pretrained, z: torch.Tensor, shape: Shape, compute: Compute) -> torch.Tensor:
        """What the network draws of latents, in [0, 1]."""
        return to_unit(self._network(trained, shape, compute)(compute.activations(z)))

    def _name(self) -> str:
        return priors.title_of(self.prior)

    def _chosen(self, shape: Shape) -> Pretrained:
        """The prior that was chosen. Raises MissingPrior when it is not there or draws other images."""
        prior = priors.named(self.prior)
        wanted = tuple(prior.card.get("shape", ()))
        layers = next((layers for layers, name in NAMES.items() if name == prior.card.get("network")), None)
        if layers is None or wanted != tuple(shape):
            have, want = ("×".join(map(str, s)) for s in (wanted, shape))
            raise MissingPrior(
                f"{self.title}: the prior {self._name()} draws images of {have or 'another kind'} and the image is {want}. "
                "Change size and channels, or choose another prior."
            )
        latents = prior.tensors.pop("latents", None)
        settings = prior.card.get("settings", {})
        if latents is None or latents.ndim != 2:
            raise MissingPrior(f"{self.title}: the prior {self._name()} holds no latents.")
        weights = {name.removeprefix("network."): value for name, value in prior.tensors.items()}
        mirrored = bool(settings.get("mirror", False)) and len(latents) % 2 == 0
        return Pretrained(weights, latents, int(settings.get("channels", self.channels)), layers, mirrored)

    def _found(self, key: str, shape: Shape, count: int) -> Pretrained | None:
        """The network of this key from the cache or the shipped checkpoints; None when there is none that fits."""
        prior = priors.find(key)
        latents = prior.tensors.pop("latents", None) if prior is not None else None
        if prior is None or latents is None or tuple(latents.shape) != (count, self.latent):
            return None
        try:
            prior.load_into(self._blank(shape))
        except MissingPrior:
            return None
        weights = {name.removeprefix("network."): value for name, value in prior.tensors.items()}
        return Pretrained(weights, latents, mirrored=self.mirror)

    def _network(self, prepared: Pretrained, shape: Shape, compute: Compute) -> torch.nn.Module:
        network = self._blank(shape, int(prepared.latents.shape[1]), prepared.channels, prepared.layers)
        try:
            network.load_state_dict(prepared.weights)
        except RuntimeError as error:
            raise MissingPrior(
                f"{self.title}: the prior does not fit this network: {str(error).splitlines()[-1].strip()}"
            ) from None
        return compute.module(network).eval()

    def _blank(self, shape: Shape, latent: int = 0, channels: int = 0, layers: Layers | None = None) -> torch.nn.Module:
        with torch.device("meta"):  # without drawing weights that are replaced at once
            network = build(shape, latent or self.latent, channels or self.channels, layers or self.layers)
        return network.to_empty(device="cpu")

    def _solve(self, problem: Problem, seed: int, prepared: Pretrained | None) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        if prepared is None:
            prepared = untrained(problem.shape, self.latent, self.channels, self.layers, seed)
        network = self._network(prepared, problem.shape, compute)
        z = prepared.sample(torch.Generator().manual_seed(seed)).to(compute.device).requires_grad_()
        weights = list(network.parameters())
        total = self.latent_iterations + self.joint_iterations
        network.requires_grad_(False)
        denoise = denoisers.load("neural", compute.device) if self.denoiser_weight else None
        cleaned: torch.Tensor | None = None
        adam = torch.optim.Adam([z], lr=self.latent_learning_rate)
        for iteration in range(1, total + 1):
            joint = iteration > self.latent_iterations
            if iteration == self.latent_iterations + 1:
                network.requires_grad_(True)
                adam = torch.optim.Adam([z, *weights], lr=self.joint_learning_rate, fused=True)
            signed = network(compute.activations(z))
            image = to_unit(signed)
            loss = 0.5 * signed_misfit(problem, image)
            if joint and self.tv_weight:
                loss = loss + self.tv_weight * total_variation(signed)
            if joint and denoise is not None:
                if cleaned is None or iteration % _LOOK_EVERY == 0:
                    cleaned = denoise(image.detach(), self.denoiser_sigma / 255)
                loss = loss + self.denoiser_weight / 2 * (2 * (image - cleaned)).square().sum()  # in [−1, 1], as the misfit
            if due(iteration, total):
                finite(loss, self.title, iteration)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            output = image.detach()
            step = Step(iteration, total, "solve", output, output, loss.detach()[None], "joint" if joint else "latent")
            yield step
        if total == 0:
            with torch.no_grad():
                output = to_unit(network(compute.activations(z)))
            step = Step(0, 0, "solve", output, output, 0.5 * signed_misfit(problem, output)[None])
            yield step
        yield replace(step, stage="result", info={"returns": total})
