"""A learning rule in a training loop of one's own; it stands on the step that `rulezoo.training` trains with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rulezoo.api.descent import Descent, MakesOptimizer, made, owned
from rulezoo.api.errors import CallError
from rulezoo.api.given import decay_of, rule_of, task_of, with_those_of_the_rule
from rulezoo.api.live import LiveModel
from rulezoo.api.losses import ExampleLoss
from rulezoo.api.states import FORMAT, check_state
from rulezoo.credit import Loss
from rulezoo.measures.probes import Prober, observed_step
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State
from rulezoo.seeding import generator
from rulezoo.task import Data, Split
from rulezoo.training import optimizers
from rulezoo.training.networks import Networks


class _Setup(NamedTuple):
    """What exists from the first batch on."""

    networks: Networks
    descent: Descent

    def memory(self) -> dict[str, Any]:
        """What the rule remembers, as a state holds it."""
        networks, own = self.networks, self.descent.own
        return {
            "params": dict(networks.state.params),
            "buffers": dict(networks.state.buffers),
            "optimizer": None if own is None else own.state_dict(),
            "noise": networks.noise[0].get_state(),
            "example": networks.net.example,
        }


class Learner:
    """Trains a model by a learning rule, one batch at a time, in your own loop.

    The model is trained in place: its parameters change, the statistics of its normalisation move, and whatever reads
    the model (an evaluation, a checkpoint, a hook) goes on as it did. The first batch that a learner is given decides
    what it knows of the network, and the rule's memory starts from it.

    Args:
        rule: the name of a rule (``rulezoo list rules``), a class of rules, or a rule.
        model: any module that returns one tensor with an example in each row. Without a `rulezoo.Site` of its own it gets
            the sites of `rulezoo.add_sites`; its parameters keep their names.
        loss: a loss function or module of torch, e.g. ``F.cross_entropy`` or ``nn.MSELoss()``, or any function that returns
            a loss for each example, ``(batch,)``. Rules descend its mean over the batch.
        optimizer: an optimizer over ``model.parameters()``, on which schedules may act; its class, e.g.
            ``torch.optim.SGD``; or a name as in `rulezoo.Budget`: ``"adam"``, ``"sgd"``, ``"RMSprop"``.
        options: of a rule that is given by name or class, e.g. ``{"rank": 16}``.
        optimizer_options: of an optimizer that is given by class or name, e.g. ``{"lr": 0.1}``.
        seed: of the rule's random numbers and the masks of dropout. The initial weights are the model's.
        steps: number of steps of the whole training, for rules that spread weight decay over it (Kolen-Pollack).

    Attributes:
        rule: the learning rule.
        optimizer: the optimizer; the learner's, where it was given by class or name.
        seed: the seed.
        t: number of steps so far.
        logs: what the rule logged in the last step: name → scalar.

    Raises:
        ValueError: where an argument cannot be used; the message says why and what to do.
        LookupError: if no rule has that name; the message gives the near ones.
    """

    rule: LearningRule
    optimizer: Optimizer
    seed: int
    logs: Tensors

    def __init__(
        self,
        rule: str | LearningRule | type[LearningRule],
        model: nn.Module,
        loss: Loss,
        optimizer: Optimizer | MakesOptimizer | str = "adam",
        *,
        options: Mapping[str, Any] | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        self.rule, self._name = rule_of(rule, dict(options or {}))
        self._live, self._loss = LiveModel(model), ExampleLoss(loss)
        given = with_those_of_the_rule(self.rule, self._name, optimizer, dict(optimizer_options or {}))
        self.optimizer = made(optimizer, given, model)
        self.seed, self._decay = seed, decay_of(self.rule, self._name, steps)
        self.logs = {}
        self._setup: _Setup | None = None

    def __repr__(self) -> str:
        return f"Learner({self.rule!r}, {type(self._live.module).__name__}, {type(self.optimizer).__name__}, t={self.t})"

    # Training --------------------------------------------------------------------------------------------------------

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on one batch, and return its mean loss before the step: `gradients`, then ``optimizer.step()``.

        Args:
            x: inputs, ``(batch, ...)``, on the model's device. The number of examples may change from batch to batch.
            y: targets, ``(batch, ...)``.

        Returns:
            A scalar without a gradient; NaN or infinite where the training diverges. Where the rule computes no loss, one
            more forward pass does.

        Raises:
            ValueError: if the rule cannot train the model, with its reason; or if the batch cannot be used.
        """
        loss = self.gradients(x, y)
        self.optimizer.step()
        return loss

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """The rule's part of a step: sets ``.grad`` of the model's parameters, for ``optimizer.step()``; the mean loss.

        Use it in place of ``loss.backward()`` to clip gradients or to call the optimizer yourself. It replaces what
        ``.grad`` held, so nothing has to be set to zero; parameters that the rule leaves alone get ``None``. Whatever
        else the rule changes (parameters of its own, updates without a gradient) changes at the next
        ``optimizer.step()``.

        Args:
            x: inputs, ``(batch, ...)``.
            y: targets, ``(batch, ...)``.

        Returns:
            As `step`.

        Raises:
            ValueError: as `step`.
        """
        batch = self._batch(x, y)
        networks, descent = self._current(batch)
        try:
            grads, updates, loss, self.logs = networks.gradients(Batch(batch.x[None], batch.y[None]))
        except Exception as error:
            if bool(networks.finite().all()):
                raise
            raise CallError(
                f"the weights of the model are not finite at step {self.t}, the training has diverged: try a smaller "
                f"learning rate ({self._name} raised {type(error).__name__}: {error})"
            ) from error
        if loss is None:
            loss = self._mean_loss(networks.network(0, len(batch.x)), batch)
        self._live.keep_statistics(networks.statistics)
        descent.hand_over(grads, updates)
        networks.t += 1
        torch.clear_autocast_cache()  # which would keep copies of the parameters as they are now
        return loss.detach()

    def model(self) -> nn.Module:
        """The model that is trained: the one that was given, in the mode it is in."""
        return self._live.module

    @property
    def t(self) -> int:
        """Number of steps so far."""
        return 0 if self._setup is None else self._setup.networks.t

    # Measures ---------------------------------------------------------------------------------------------------

    @property
    def net(self) -> Net:
        """The network as the rule sees it: sites, layers, shapes; after the first batch."""
        return self._networks().net

    def predict(self, x: Tensor) -> Tensor:
        """The outputs for ``x`` in evaluation mode, ``(batch, *out)``; ``model(x)`` unless the rule reads its answer elsewhere."""
        networks = self._networks()
        self._refresh(networks)
        return networks.predict(x)[0]

    def signals(self, x: Tensor, y: Tensor) -> Tensors:
        """The teaching signal that a step on this batch would give at every ``post`` site; nothing is trained.

        A signal takes the place of the gradient of the mean loss with respect to the activity; it is that gradient for
        backprop.

        Args:
            x: inputs, ``(batch, ...)``.
            y: targets, ``(batch, ...)``.

        Returns:
            Visit of a site → ``(batch, *shape)``; without the sites that the rule sends no signal to.

        Raises:
            ValueError: if the signals of the rule cannot be seen, as it does not pull them back through the network.
        """
        batch = self._batch(x, y)
        networks, _ = self._current(batch)
        noise = generator(self.seed, type(self.rule).__name__, "probe", self.t, device=x.device)
        net, (params, state) = networks.network(0, len(x)), networks.of(0)
        seen = observed_step(net, self._loss, self.rule, params, state, batch, noise, self.t)
        if seen.reason is not None:
            raise CallError(f"{self._name}: {seen.reason}")
        return seen.signals()

    def angles(self, x: Tensor, y: Tensor) -> dict[str, dict[str, float]]:
        """Degrees between the directions of the rule and of backprop on this batch; nothing is trained.

        Args:
            x: inputs, ``(batch, ...)``.
            y: targets, ``(batch, ...)``.

        Returns:
            ``"sites"``: name of a ``post`` site → the angle of its teaching signal, over all its visits, the mean over
            examples; ``"parameters"``: name of a parameter → the angle of its gradient, ``"*"`` = of all together. 90 is
            no better than chance. What the rule gives no direction for is left out; NaN where one of the two is zero.
        """
        batch = self._batch(x, y)
        networks, _ = self._current(batch)
        split = Split(*batch)
        data = Data(split, split, split)
        net, (params, state) = networks.network(0, len(x)), networks.of(0)
        prober = Prober(net, self._loss, data, len(x), examples=len(x), samples=1)
        probe = prober.probe(self.rule, params, state, self.t, self.seed, geometry=False)
        return {
            "sites": _angles(probe.sites),
            "parameters": _angles(probe.weights),
        }

    # State --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on, for ``torch.save``: a run that is resumed is the same, bit for bit.

        It holds the model's tensors and the optimizer's state, the rule's memory and random numbers, the number of steps,
        and two inputs of the first batch, with which the network is read again. Tensors are as they lie in memory: copy
        them (``copy.deepcopy``) to keep them while the training goes on. Schedules are yours to keep.
        Take it between two steps, and not between `gradients` and the optimizer's step.
        """
        return {
            "format": FORMAT,
            "rule": type(self.rule).__name__,
            "options": self.rule.resolved(),
            "seed": self.seed,
            "t": self.t,
            "model": {name: tensor.detach() for name, tensor in self._live.tensors().items()},
            "optimizer_class": type(self.optimizer).__name__,
            "optimizer": self.optimizer.state_dict(),
            "memory": None if self._setup is None else self._setup.memory(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of a learner with the same rule, model and optimizer.

        The model's tensors, the optimizer's state and the seed become those of the state.

        Args:
            saved: the state.

        Raises:
            ValueError: if it is of another rule, model or optimizer; then nothing has changed.
        """
        check_state(saved, self.rule, self._live.tensors(), self.optimizer, self._live.device)
        with torch.no_grad():
            for name, tensor in self._live.tensors().items():
                tensor.copy_(saved["model"][name])
        optimizers.load_state(self.optimizer, saved["optimizer"])
        self.seed, memory = saved["seed"], saved["memory"]
        if self._setup is not None:
            self._setup.descent.close()
        self._setup, self.logs = None, {}
        self._live.forget()
        if memory is None:
            return
        example = memory["example"].to(self._live.device)
        state = State(memory["params"], memory["buffers"])
        networks, descent = self._setup = self._set_up(
            self._live.read(example), Batch(example, example), state
        )
        # As it lay in memory: sums over another layout come out in another order.
        networks.state = State(networks.state.params, dict(memory["buffers"]))
        networks.t = saved["t"]
        networks.noise[0].set_state(memory["noise"].cpu())
        if descent.own is not None:
            optimizers.load_state(descent.own, memory["optimizer"])

    # Internals --------------------------------------------------------------------------------------------

    def _batch(self, x: object, y: object) -> Batch:
        """See that a batch is two tensors that fit the model, and the first batch."""
        if torch.is_inference_mode_enabled():
            raise CallError("a step inside of torch.inference_mode() cannot train; call it outside")
        for word, one in (("inputs x", x), ("targets y", y)):
            if not isinstance(one, Tensor) or one.ndim == 0:
                got = "a single number" if isinstance(one, Tensor) else f"a {type(one).__name__}"
                raise CallError(f"{word} must be a tensor with an example in each row, got {got}")
            if one.device != self._live.device:
                raise CallError(
                    f"{word} are on {one.device}, and the model is on {self._live.device}; move the batch there"
                )
        assert isinstance(x, Tensor)  # for mypy
        assert isinstance(y, Tensor)
        if not len(x) or len(x) != len(y):
            raise CallError(
                f"got {len(x)} inputs and {len(y)} targets; expected a target for each input, and one or more"
            )
        if self._setup is not None:
            example = self._setup.networks.net.example
            if (x.shape[1:], x.dtype) != (example.shape[1:], example.dtype):
                raise CallError(
                    f"inputs are {x.dtype} of shape {tuple(x.shape[1:])} for an example, those of the first batch "
                    f"{example.dtype} of shape {tuple(example.shape[1:])}; give inputs of one kind, or a learner to each"
                )
        return Batch(x.detach(), y.detach())

    def _current(self, batch: Batch) -> _Setup:
        """The set-up, made at the first batch, with the model's tensors and modes as they are now."""
        self._loss.check_targets(batch.y, self.t)
        if self._setup is None:
            self._setup = self._start(batch)
        self._refresh(self._setup.networks)
        return self._setup

    def _networks(self) -> Networks:
        if self._setup is None:
            raise CallError(
                "the learner has not been given a batch yet, with which it reads the network; call step()"
            )
        return self._setup.networks

    def _start(self, batch: Batch) -> _Setup:
        """Read the network, see that rule and loss can be used with it, and let the rule's memory begin."""
        net = self._live.read(batch.x[:2].clone())  # a view would keep the whole batch, in files too
        task = task_of(self._loss, net, batch)
        if reason := self.rule.skip(net, task):
            raise CallError(f"{self._name} cannot train this {type(self._live.module).__name__}: {reason}")
        with torch.no_grad():
            output = net.evaluation().run(net.init_params(), batch.x)
        self._loss.check(task, output, batch.y)
        return self._set_up(net, batch, None)

    def _set_up(self, net: Net, first: Batch, memory: State | None) -> _Setup:
        values, batch = self._live.values(net), Batch(first.x[None], first.y[None])
        known = None if memory is None else [memory]
        networks = Networks(self.rule, net, self._loss, [values], batch, [self.seed], memory=known)
        trainable = {name: p for name, p in self._live.module.named_parameters() if name in net.shapes}
        own = owned(networks.state.params)
        return _Setup(networks, Descent(self.optimizer, trainable, own, self.rule.rates(net), self._decay))

    def _refresh(self, networks: Networks) -> None:
        """Take over the tensors and the mode that the model has now."""
        networks.net = self._live.now(networks.net)
        networks.params, networks.fixed, networks.statistics = self._live.values(networks.net)

    def _mean_loss(self, net: Net, batch: Batch) -> Tensor:
        with torch.no_grad():
            return self._loss(net.run(self._live.values(net).params, batch.x), batch.y).mean()


def _angles(numbers: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    found = {name: each["angle"] for name, each in numbers.items() if "angle" in each}
    return {name: torch.nan if angle is None else angle for name, angle in found.items()}
