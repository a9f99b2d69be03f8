import pytest
import torch

from rulezoo_tasks.adding import AddingRNN
from rulezoo_tasks.delayed_match import DelayedMatchRNN
from rulezoo_tasks.digits import DigitsCNN, DigitsRNN
from rulezoo_tasks.digits_mlp import DigitsMLP
from rulezoo_tasks.flip_flop import FlipFlopRNN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "least"),
    [
        (DigitsCNN(), 0.96),
        (DigitsMLP(), 0.95),
        (DigitsRNN(), 0.95),
        (FlipFlopRNN(), 0.99),
        (AddingRNN(), 0.99),
        (DelayedMatchRNN(), 0.99),
    ],
    ids=["digits-cnn", "digits-mlp", "digits-rnn", "flip-flop-rnn", "adding-rnn", "delayed-match-rnn"],
)
def test_the_budget_is_enough_for_plain_autograd(task, least):
    """One seed; the lowest seen were 0.969, 0.958 and 0.998 over six, 0.9992 and 1 over three for the last two, 0.967 over three for digits-mlp.

    A test image is worth 0.003.
    """
    budget, data = task.budget, task.data(None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.network()
    gen = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=budget.lr)
    steps = budget.epochs * (len(data.train.y) // budget.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(budget.epochs):
        for index in torch.randperm(len(data.train.y), generator=gen).split(budget.batch):
            if len(index) == budget.batch:
                optimizer.zero_grad()
                task.loss(network(data.train.x[index]), data.train.y[index]).mean().backward()
                optimizer.step()
                schedule.step()
    with torch.no_grad():
        assert task.score(network(data.test.x), data.test.y).mean() > least
