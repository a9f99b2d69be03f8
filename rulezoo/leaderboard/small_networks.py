"""Published numbers of small dense networks, in settings that public code states in full.

Each has a task with the same data, network, initial weights, loss and optimiser, whose module says how it deviates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulezoo.leaderboard.published import Published, Source

if TYPE_CHECKING:
    from rulezoo.options import Value

SAFAAI = Source(
    citation="Safaai, Reddy, Sabatini 2026, Conditioned Direct Feedback Alignment via Activity and Error Geometry (public code, "
    "PREDICTIONS_SCORECARD.md, P6 and P7)",
    link="https://github.com/KempnerInstitute/conditioned-dfa",
    seeds=15,
    setting="1,000 updates by plain SGD with batches of 128, 5,000 training images held out; ± is the standard error over "
    "five networks (P6) or eight (P7), with three feedback matrices each; conditioned updates have the norm of DFA's",
)
DEFP = Source(
    citation="Frenkel, Lefebvre, Bol 2021, Learning Without Feedback; what the authors' code reaches after 10 epochs, to two "
    "digits, is in the tests of Flügel's DEFP (test_results_at_epoch.py)",
    link="https://github.com/fluegelk/DEFP",
    seeds=1,
    setting="one hidden layer of 500 tanh units, sigmoid outputs with cross-entropy, Adam, batches of 60 (MNIST) or 100 "
    "(CIFAR-10), 10 epochs",
)
JPC = Source(
    citation="Innocenti et al., jpc, a library for predictive coding (examples jpc_from_scratch and epc, printed output)",
    link="https://github.com/thebuckleylab/jpc",
    seeds=1,
    setting="MNIST, squared error, Adam with learning rate 0.001, batches of 64, a few hundred updates",
)
DELLAFERRERA = Source(
    citation="Dellaferrera, Kreiman 2022, Error-driven Input Modulation (public code, notebook on CIFAR-10, printed output)",
    link="https://github.com/GiorgiaD/PEPITA",
    seeds=1,
    setting="one hidden layer of 1,024 rectified units with 10 % dropout, no biases, SGD with momentum 0.9, batches of 64, "
    "learning rate 0.01, lowered at epochs 60 and 90",
)
AKROUT_EARLY = Source(
    citation="Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, Deep learning without weight transport (logs of the "
    "authors' public code, Deep-Learning-without-Weight-Transport)",
    link="https://github.com/makrout/Deep-Learning-without-Weight-Transport",
    seeds=1,
    setting="one hidden layer of sigmoid units, all training examples, SGD with batches of 128; the log after 40 of its 400 epochs",
)

_CONDITIONED = {  # task → data, network, learning rate, dampings, and each condition's accuracy, its ± in %, runs of ours
    "mnist-relu-mlp": (
        "MNIST",
        "784-256-128-10, ReLU, 1,000 updates",
        0.03,
        {"activity_damping": 3.0, "error_damping": 0.1},
        {
            None: (87.08, 0.79, 24),
            "activity": (95.81, 0.03, 5),
            "error": (94.61, 0.16, 24),
            "both": (96.71, 0.04, 5),
        },
    ),
    "fashion-tanh-mlp": (
        "Fashion-MNIST",
        "784-300-300-300-10, tanh, 1,000 updates",
        1e-3,
        {"activity_damping": 0.03, "error_damping": 30.0},
        {
            None: (61.98, 0.17, 24),
            "activity": (80.29, 0.10, 5),
            "error": (63.74, 0.41, 5),
            "both": (80.79, 0.09, 5),
        },
    ),
}


def _of_conditioned_feedback() -> list[Published]:
    found = []
    for task, (data, network, lr, dampings, conditions) in _CONDITIONED.items():
        budget: dict[str, Value] = {"epochs": 1, "batch": 128, "optimizer": "SGD", "lr": lr}
        for condition, (score, error, runs) in conditions.items():
            rule = "ndfa" if condition else "direct-feedback-alignment"
            options: dict[str, Value] = {"scale": 1.0}
            if condition:
                options |= {"condition": condition, "match_norm": True, **dampings}
            found.append(
                Published(
                    rule,
                    data,
                    f"{network}, condition={condition}" if condition else network,
                    round(score / 100, 4),
                    SAFAAI,
                    task,
                    same=True,
                    budget={**budget, "schedule": "constant"},
                    task_options={"examples": 128_000},
                    options=options,
                    spread=round(error / 100, 4),
                    runs=runs,
                )
            )
    return found


def _of_random_targets() -> list[Published]:
    found = []
    for data, network, task, batch, scores, rates in (
        ("MNIST", "784-500-10, tanh, 10 epochs", "mnist-tanh-mlp", 60, (0.97, 0.93), (1.5e-4, 1.5e-4)),
        ("CIFAR-10", "3072-500-10, tanh, 10 epochs", "cifar10-tanh-mlp", 100, (0.42, 0.43), (1.5e-5, 1.5e-4)),
    ):
        for rule, score, lr in zip(
            ("backprop", "direct-random-target-projection"), scores, rates, strict=True
        ):
            budget: dict[str, Value] = {"epochs": 10, "batch": batch, "optimizer": "Adam", "lr": lr}
            options: dict[str, Value] = {} if rule == "backprop" else {"scale": 1.0, "hidden_rate": 1.0}
            found.append(
                Published(rule, data, network, score, DEFP, task, True, budget, {"examples": None}, options)
            )
    return found


def _of_predictive_coding() -> list[Published]:
    budget: dict[str, Value] = {"epochs": 1, "batch": 64, "optimizer": "Adam", "lr": 1e-3}
    return [
        Published(
            "predictive-coding", "MNIST", "784-300-300-10, tanh, 500 updates", 0.9376, JPC, "mnist-squared-mlp", True,
            budget, {"examples": 32_000}, {"rate": 0.003125, "steps": 20},
        ),
        Published(
            "error-based-predictive-coding", "MNIST", "nine hidden layers of 128 units, ReLU, 300 updates", 0.9161, JPC,
            "mnist-deep-mlp", True, budget, {"examples": 19_200}, {"rate": 0.0078125, "steps": 10}, runs=5,
        ),
    ]  # fmt: skip


def _of_modulated_input() -> list[Published]:
    training: dict[str, Value] = {"batch": 64, "optimizer": "SGD", "optimizer.momentum": 0.9, "lr": 0.01}
    training |= {"schedule": "MultiStepLR", "schedule.milestones": "60,90", "schedule_per": "epoch"}
    budget = {"epochs": 100, **training}
    return [
        Published(
            "pepita", "CIFAR-10", "3072-1024-10, ReLU", 0.5258, DELLAFERRERA, "cifar10-relu-mlp", True, budget,
            {"examples": None},
            {"size": 0.05, "hidden_rate": 1.0}, runs=1,
        )
    ]  # fmt: skip


def _of_sigmoid_units() -> list[Published]:
    found = []
    for rule, score, lr in (
        ("backprop", 0.9743, 0.2),
        ("feedback-alignment", 0.9417, 0.2),
        ("weight-mirror", 0.9580, 0.05),
        ("kolen-pollack", 0.9784, 0.3),
    ):
        budget: dict[str, Value] = {
            "epochs": 40,
            "batch": 128,
            "optimizer": "SGD",
            "lr": lr,
            "weight_decay": 0.0,
        }
        network = "784-500-10, sigmoid, after 40 of 400 epochs"
        found.append(
            Published(rule, "MNIST", network, score, AKROUT_EARLY, "mnist-sigmoid-mlp", True, budget,
                      {"examples": None}, runs=1)
        )  # fmt: skip
    return found


SMALL = (
    *_of_conditioned_feedback(),
    *_of_random_targets(),
    *_of_predictive_coding(),
    *_of_modulated_input(),
    *_of_sigmoid_units(),
)
"""Every number."""
