"""The parts of the set-up column that are drawn anew: the settings of operator, noise, methods and stopping rules."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import reduce
from operator import getitem
from typing import Any

import gradio as gr

from netprior_core import denoisers
from netprior_core.compute import apart
from netprior_core.errors import NetPriorError
from netprior_core.experiment import Experiment
from netprior_core.methods._tunable import Tunable
from netprior_core.networks import drunet_weights
from netprior_core.noise import Noise
from netprior_core.settings import FieldSpec
from netprior_core.stopping import StoppingRule
from netprior_core.ui import files, offers, setup
from netprior_core.ui.canvas import canvas
from netprior_core.ui.controls import FILES, control, misfit, split
from netprior_core.ui.say import inform, warn
from netprior_core.ui.session import App

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
#: Two parts of one page drawn anew at the same time trip over each other inside gradio ("dictionary changed size").
ONE_BY_ONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "draw"}
Changes = dict[Any, Any]
Change = Callable[[Experiment], Experiment]


class Drawn:
    """Draws settings from their declared fields. The column that inherits it has the components and knows what a change means."""

    app: App
    experiment: gr.State
    nonce: gr.State
    shape_of_operator: gr.State
    shape_of_rules: gr.State
    shape_of_lanes: list[gr.State]
    presets: list[gr.Dropdown]

    def attempt(self, now: Experiment, change: Change, request: gr.Request) -> Changes:
        """One changed value, or a warning and nothing."""
        raise NotImplementedError

    def renew(self, now: Experiment, nonce: int, change: Change, request: gr.Request) -> Changes:
        """Every control after a change."""
        raise NotImplementedError

    def anew(self, now: Experiment, nonce: int, change: Change, request: gr.Request) -> Changes:
        """Every control and the live view after something has come here, even where the set-up stays the same."""
        raise NotImplementedError

    def everything(self) -> list[Any]:
        """Every component that shows a part of the experiment."""
        raise NotImplementedError

    def of_a_value(self) -> list[Any]:
        """What may change with one value: the experiment, and lanes that were tuned on the problem as it was."""
        return [self.experiment, *self.presets, *self.shape_of_lanes]

    def preset_of(self, experiment: Experiment, lane: int) -> Any:
        """The control of a lane's presets."""
        raise NotImplementedError

    def tune_button(self, lane: int) -> None:
        """The button that searches a lane's settings."""
        raise NotImplementedError

    def _render_operator(self) -> None:
        @gr.render(inputs=[self.experiment], triggers=[self.shape_of_operator.change], **ONE_BY_ONE)
        def operator_settings(experiment: Experiment | None) -> None:
            if experiment is None:
                return
            main, more = split(experiment.operator)
            for field in main:
                self._field(experiment, ["operator"], field, "operator")
            if getattr(experiment.operator, "pattern", "") == "drawn":
                self._mask_editor(experiment)
            self._noise_choice(experiment)
            noise_main, noise_more = split(experiment.noise)
            if not experiment.operator.measures_images:
                noise_more = [field for field in noise_more if field.name != "clip"]
            for field in noise_main:
                self._field(experiment, ["noise"], field, "noise")
            if [field for field in more if field.widget != "mask"] or noise_more:
                with gr.Accordion("More about operator and noise", open=False):
                    for field in more:
                        self._field(experiment, ["operator"], field, "operator")
                    for field in noise_more:
                        self._field(experiment, ["noise"], field, "noise")
            self._mismatch(experiment)

    def _noise_choice(self, experiment: Experiment) -> None:
        kinds = [(cls.title, cls.model_fields["kind"].default) for cls in Noise.registry]
        choice = gr.Dropdown(
            kinds, value=experiment.noise.kind, label="Noise", filterable=False, interactive=True, elem_id="np-noise"
        )

        def chosen(kind: str, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            before = self.app.setup(request.session_hash, now)
            changes = self.attempt(now, lambda base: setup.with_noise(base, kind), request)
            if changes.get(self.experiment, before) != before:
                changes[self.shape_of_operator] = f"{now.operator.kind}/{nonce}/{kind}"
            return changes

        outputs = [*self.of_a_value(), self.shape_of_operator]
        choice.input(chosen, [choice, self.experiment, self.nonce], outputs, trigger_mode="always_last", **QUIET)

    def _mismatch(self, experiment: Experiment) -> None:
        operator = experiment.operator
        hidden = {"operator_error": not operator.error_means, "finer_grid": not operator.simulates_finer}
        wrong = experiment.mismatch.describe(operator)
        with gr.Accordion("Mismatch", open=bool(wrong)):
            gr.HTML(
                "<p class='np-info'>A simulation flatters: the methods know A and σ exactly. Of a real instrument nobody does."
                + (f" Operator error 1 means: {html.escape(operator.error_means)}." if operator.error_means else "")
                + "</p>"
            )
            for field in experiment.mismatch.fields():
                if not hidden.get(field.name):
                    self._field(experiment, ["mismatch"], field, "mismatch")

    def _render_lane(self, lane: int) -> None:
        @gr.render(inputs=[self.experiment], triggers=[self.shape_of_lanes[lane].change], **ONE_BY_ONE)
        def lane_settings(experiment: Experiment | None) -> None:
            if experiment is None or lane >= len(experiment.methods):
                return
            method = experiment.methods[lane]
            main, more = split(method)
            if not main:
                return
            with gr.Accordion(f"{method.title} settings", open=False):
                for field in main:
                    self._field(experiment, ["methods", lane], field, f"method-{lane}")
                if more:
                    with gr.Accordion("All other settings", open=False):
                        for field in more:
                            self._field(experiment, ["methods", lane], field, f"method-{lane}")
                if isinstance(method, Tunable):
                    self.tune_button(lane)
                if method.citation:
                    gr.Markdown(method.citation, elem_classes="np-citation")

    def _render_rules(self) -> None:
        @gr.render(inputs=[self.experiment], triggers=[self.shape_of_rules.change], **ONE_BY_ONE)
        def rule_settings(experiment: Experiment | None) -> None:
            if experiment is None:
                return
            for index, rule in enumerate(experiment.stopping):
                gr.HTML(_rule_words(rule))
                for field in rule.fields():
                    self._field(experiment, ["stopping", index], field, f"rule-{index}")

    def _field(self, experiment: Experiment, path: list[str | int], field: Any, key: str) -> None:
        settings: Any = getattr(experiment, str(path[0]))
        settings = settings if len(path) == 1 else settings[path[1]]
        if field.widget == "prior":
            self._prior(experiment, path, field, key)
            return
        value = getattr(settings, field.name)
        asks = field.widget == "denoiser"
        component = offers.denoiser_menu(field, value, experiment.channels, key) if asks else control(field, value, key)
        if component is None:
            return
        typed = self.typed(field, path)

        def changed(value: Any, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            changes = typed(value, now, request)
            if self.experiment not in changes:
                return changes
            if path[0] == "operator" and field.type == "choice":
                changes[self.shape_of_operator] = f"{now.operator.kind}/{nonce}/{value}"
            if path[0] == "methods":
                changes[self.presets[int(path[1])]] = self.preset_of(changes[self.experiment], int(path[1]))
            return changes

        outputs = [*self.of_a_value(), self.shape_of_operator]
        inputs = [component, self.experiment, self.nonce]
        listener = component.upload if isinstance(component, gr.File) else component.input  # type: ignore[attr-defined]
        listener(changed, inputs, outputs, trigger_mode="always_last", **QUIET)
        if isinstance(component, gr.Number):
            self.settle(component, field, path)
        if asks and set(drunet_weights.KEPT) != set(drunet_weights.kept()):
            self._weights(path, field, key)

    def typed(self, field: FieldSpec, path: list[str | int]) -> Callable[[Any, Experiment, gr.Request], Changes]:
        """The event of a control of one setting, the one at ``path`` in the experiment."""

        def changed(value: Any, now: Experiment, request: gr.Request) -> Changes:
            if field.type in ("int", "float") and misfit(field, value, None):
                return gr.skip()  # perhaps it is still being typed; leaving the box says what is wrong
            value = int(value) if field.type == "int" and value is not None else value

            def changed_to(base: Experiment) -> Experiment:
                content = files.text_of(value, field.widget) if field.widget in FILES else value
                return setup.change(base, [*path, field.name], content)

            return self.attempt(now, changed_to, request)

        return changed

    def settle(self, component: gr.Number, field: FieldSpec, path: list[str | int]) -> None:
        """A number box that is left with what cannot be used says so, and shows what is in use."""

        def left(value: float | None, now: Experiment, request: gr.Request) -> Any:
            used = self.app.setup(request.session_hash, now) or now
            try:
                kept: Any = reduce(getitem, [*path, field.name], used.model_dump())  # type: ignore[arg-type]
            except (KeyError, IndexError):
                return gr.skip()  # what the box belonged to is gone
            wrong = misfit(field, value, kept)
            if not wrong:
                return gr.skip()
            warn(wrong)
            return kept

        gr.on([component.blur, component.submit], left, [component, self.experiment], component, **QUIET)

    def _prior(self, experiment: Experiment, path: list[str | int], field: Any, key: str) -> None:
        """Which prior a method starts from: learned from the examples, shipped, or a file of the user's."""
        lane = int(path[1])
        value = getattr(experiment.methods[lane], field.name)
        kind = experiment.methods[lane].kind
        choices = setup.prior_choices(kind, value)
        chooser = gr.Dropdown(
            choices, value=value, label=field.label, info=field.help, filterable=False, interactive=True, elem_id=f"np-{key}-prior"
        )
        given = gr.File(
            label="Open a prior (.safetensors)",
            file_types=[".safetensors"],
            type="filepath",
            height=76,
            elem_id=f"np-{key}-prior-file",
        )

        def changed(name: str, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            return self.renew(now, nonce, lambda base: setup.change(base, [*path, field.name], name or ""), request)

        def opened(file: str | None, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            if file is None:
                return gr.skip()
            return self.renew(now, nonce, lambda base: setup.change(base, [*path, field.name], files.adopt_prior(file)), request)

        def looked(name: str | None, request: gr.Request) -> Any:
            """What the tab learned since this list was drawn."""
            return gr.update(choices=setup.prior_choices(kind, name or "", self.app.session(request.session_hash).learned))

        chooser.focus(looked, [chooser], [chooser], **QUIET)
        chooser.input(changed, [chooser, self.experiment, self.nonce], self.everything(), trigger_mode="always_last", **QUIET)
        given.upload(opened, [given, self.experiment, self.nonce], self.everything(), **QUIET)

    def _weights(self, path: list[str | int], field: FieldSpec, key: str) -> None:
        """Where the published DRUNet's weights are given, as long as some of them are missing."""
        with gr.Accordion("DRUNet’s published weights", open=False):
            gr.HTML(
                "<p class='np-info'>drunet_color.pth for colour, drunet_gray.pth for grey (131 MB each, from its authors). Nothing "
                "but numbers is read from the file, and they are kept for later runs.</p>"
            )
            given = gr.File(
                label="Open weights (.pth or .safetensors)",
                file_types=[".pth", ".safetensors"],
                type="filepath",
                height=76,
                elem_id=f"np-{key}-weights",
            )

        def opened(file: str | None, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            if file is None:
                return gr.skip()
            try:
                colour = apart(files.adopt_weights, file)
            except NetPriorError as error:
                warn(str(error))
                return {given: None}
            inform(f"DRUNet's {colour} weights are here now.")

            def chosen(base: Experiment) -> Experiment:
                fits = denoisers.reason("drunet", base.channels) is None
                return setup.change(base, [*path, field.name], "drunet") if fits else base

            return self.anew(now, nonce, chosen, request)

        given.upload(opened, [given, self.experiment, self.nonce], [*self.everything(), given], **QUIET)

    def _mask_editor(self, experiment: Experiment) -> None:
        editor = canvas(apart(files.editor_background, experiment))

        def drawn(value: Any, now: Experiment, request: gr.Request) -> Changes:
            mask = files.mask_of(value, now.size)
            if mask is None:
                return gr.skip()
            return self.attempt(now, lambda base: setup.change(base, ["operator", "mask"], mask), request)

        editor.input(drawn, [editor, self.experiment], self.of_a_value(), trigger_mode="always_last", **QUIET)


def _rule_words(rule: StoppingRule) -> str:
    """A rule above its settings: name, what it does, what it costs."""
    words = rule.summary().removeprefix(f"{rule.title}: ")
    words = words[0].upper() + words[1:]
    return f"<p class='np-info np-rule'><b>{html.escape(rule.title)}</b> {html.escape(words)} Costs {html.escape(rule.cost)}.</p>"
