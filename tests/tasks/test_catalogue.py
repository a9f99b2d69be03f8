import subprocess
import sys

import pytest
import torch

from rulezoo import Budget, Net, Task, TaskSpec
from rulezoo_tasks import rulezoo_tasks

SPECS = {spec.name: spec for spec in rulezoo_tasks()}
FAMILIES = {name for name, spec in SPECS.items() if spec.is_family}  # each has tests of its own
EMBEDDED = [name for name, spec in SPECS.items() if spec.embedded and not spec.is_family]
INPUTS = {
    "digits-cnn": (1, 8, 8),
    "digits-mlp": (8, 8),
    "digits-rnn": (8, 8),
    "flip-flop-rnn": (20, 3),
    "adding-rnn": (25, 1),
    "delayed-match-rnn": (12, 2),
    "digits-snn": (16, 64),
    "recall-snn": (20, 25),
    "mnist-mlp": (1, 28, 28),
    "mnist-sigmoid-mlp": (1, 28, 28),
    "cifar10-sigmoid-mlp": (3, 32, 32),
    "mnist-relu-mlp": (1, 28, 28),
    "fashion-tanh-mlp": (1, 28, 28),
    "mnist-tanh-mlp": (1, 28, 28),
    "cifar10-tanh-mlp": (3, 32, 32),
    "mnist-squared-mlp": (1, 28, 28),
    "mnist-deep-mlp": (1, 28, 28),
    "cifar10-relu-mlp": (3, 32, 32),
    "fashion-cnn": (1, 28, 28),
    "fashion-rnn": (28, 28),
    "cifar10-cnn": (3, 32, 32),
    "cifar10-resnet20": (3, 32, 32),
    "cifar10-lenet": (3, 32, 32),
    "cifar100-resnet20": (3, 32, 32),
    "tiny-imagenet-alexnet": (3, 32, 32),
    "tiny-imagenet-resnet18": (3, 32, 32),
    "image-folder": (3, 64, 64),
    "imagenet-resnet18": (3, 64, 64),
}
SMALL = {  # options with which a test takes less time
    "tiny-imagenet-alexnet": {"size": 32, "width": 0.25},
    "tiny-imagenet-resnet18": {"size": 32, "width": 0.25},
    "imagenet-resnet18": {"size": 64, "width": 0.25},
}
NUMBERS = {"flip-flop-rnn": (20, 3), "adding-rnn": (25, 1)}  # tasks whose targets are numbers, at every step
CLASSES = {  # of tasks whose targets are not ten classes
    "delayed-match-rnn": 2,
    "recall-snn": 4,
    "cifar100-resnet20": 100,
    "tiny-imagenet-alexnet": 200,
    "tiny-imagenet-resnet18": 200,
    "imagenet-resnet18": 1000,
}
OUTPUTS = {name: NUMBERS.get(name, (CLASSES.get(name, 10),)) for name in INPUTS}
READOUTS = {
    "cifar10-resnet20": "fc",
    "cifar10-lenet": "fc2",
    "cifar100-resnet20": "fc",
    "tiny-imagenet-alexnet": "classifier.6",
    "tiny-imagenet-resnet18": "fc",
    "imagenet-resnet18": "fc",
}
WITHOUT_BIASES = {"cifar10-relu-mlp"}


@pytest.fixture(params=sorted(INPUTS))
def name(request):
    return request.param


@pytest.fixture
def task(name):
    return SPECS[name].load()(**SMALL.get(name, {}))


@pytest.fixture(params=EMBEDDED)
def embedded(request):
    return SPECS[request.param].load()()


def test_the_catalogue_is_light():
    code = "import sys, rulezoo_tasks; rulezoo_tasks.rulezoo_tasks(); print({'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_these_tasks_are_listed():
    assert SPECS.keys() == INPUTS.keys() | FAMILIES
    assert {"neurogym"} == FAMILIES
    assert len(rulezoo_tasks()) == len(SPECS)
    assert EMBEDDED == [
        "digits-cnn", "digits-mlp", "digits-rnn", "flip-flop-rnn", "adding-rnn", "delayed-match-rnn", "digits-snn",
        "recall-snn",
    ]  # fmt: skip
    assert all(
        isinstance(spec, TaskSpec) and spec.summary and "http" in spec.reference for spec in SPECS.values()
    )


def test_a_task_is_a_value_with_a_budget(task):
    assert isinstance(task, Task)
    assert isinstance(task.budget, Budget)
    same = type(task)(**task.resolved())
    assert task == same
    assert hash(task) == hash(same)


def test_network_maps_inputs_to_outputs(name, task):
    net = Net(task.network(), torch.zeros(2, *INPUTS[name]))
    assert net.output_shape == OUTPUTS[name]
    assert net.run(net.init_params(), torch.rand(5, *INPUTS[name])).shape == (5, *OUTPUTS[name])


def test_nothing_lies_behind_the_last_site_but_the_read_out(name, task):
    net = Net(task.network(), torch.zeros(2, *INPUTS[name]))
    module = READOUTS.get(name, "w_out" if name.endswith(("rnn", "snn")) else "readout")
    assert net.readout == {f"{module}.weight", f"{module}.bias"} - (
        {f"{module}.bias"} if name in WITHOUT_BIASES else set()
    )


def test_network_is_drawn_from_the_global_generator_alone(task):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in task.network().parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_loss_and_score_are_per_example_and_differentiable_in_float64(name, task):
    output = torch.randn(7, *OUTPUTS[name], dtype=torch.float64, requires_grad=True)
    target = (
        torch.randn(7, *NUMBERS[name]).sign().double()
        if name in NUMBERS
        else torch.arange(7) % OUTPUTS[name][0]
    )
    loss, score = task.loss(output, target), task.score(output, target)
    assert loss.shape == score.shape == (7,)
    assert loss.dtype == score.dtype == torch.float64
    reach = torch.autograd.grad(loss[3], output)[0].flatten(1).abs().sum(1) > 0
    assert reach.tolist() == [False] * 3 + [True] + [False] * 3


def test_embedded_data_have_the_declared_form(embedded):
    data = embedded.data(None)
    for part in data:
        assert part.x.dtype == torch.float32
        assert part.y.dtype == (torch.int64 if embedded.metric == "accuracy" else torch.float32)
        assert len(part.x) == len(part.y)
        assert part.x.is_contiguous()
        assert part.x.abs().max() <= 1


def test_embedded_data_are_the_same_at_every_call_whatever_the_global_generator(embedded):
    torch.manual_seed(1)
    first = embedded.data(None)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = embedded.data(None)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_parts_share_no_example(embedded):
    examples = [{tuple(x.flatten().tolist()) for x in part.x} for part in embedded.data(None)]
    assert all(len(a) == len(part.x) for a, part in zip(examples, embedded.data(None), strict=True))
    assert not examples[0] & examples[1]
    assert not examples[0] & examples[2]
    assert not examples[1] & examples[2]


def test_chance_is_what_guessing_gets(embedded):
    """Random outputs on the test data: within 4 standard errors of the mean over examples (seed fixed)."""
    target = embedded.data(None).test.y
    shape = target.shape if target.is_floating_point() else (len(target), int(target.max()) + 1)
    scores = embedded.score(torch.randn(shape, generator=torch.Generator().manual_seed(0)), target)
    assert abs(scores.mean() - embedded.chance) < 4 * scores.std() / len(scores) ** 0.5


def test_chance_is_what_a_constant_answer_gets(embedded):
    target = embedded.data(None).test.y
    classes = 1 if target.is_floating_point() else int(target.max()) + 1
    for answer in range(classes):
        output = (
            torch.ones_like(target)
            if target.is_floating_point()
            else torch.eye(classes)[[answer] * len(target)]
        )
        scores = embedded.score(output, target)
        assert abs(scores.mean() - embedded.chance) < 4 * scores.std() / len(scores) ** 0.5
