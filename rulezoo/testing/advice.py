"""What to do when a check fails: the next step, by the check's name."""

from __future__ import annotations

_SPEC = "mend the spec that the plugin's hook returns"
_PURE = "keep what must be remembered in the State that step() returns, and copy before you change"
_STATE = "give the state all its tensors in init(), and return tensors like them from step()"

NEXT_STEP = {
    # rules
    "spec": _SPEC,
    "options": "declare every option with rulezoo.hp(default, meaning, low=…, high=…), and let the base class check it",
    "frozen_value": "decorate the class with @dataclass(frozen=True)",
    "no_sites": "return a sentence from skip() for networks that cannot be served",
    "no_readout": "return a sentence from skip() for networks that cannot be served",
    "limits": "compare the two rules by hand on the options of the limit, or correct the spec's limits",
    "learns": "check the sign of the teaching signal, then its size: `rulezoo compare --probe 5` shows angles to backprop",
    "gradients": "return grads of the parameters' names, shapes and dtypes, without a graph (credit.cut and its pull do)",
    "hidden_gradients": 'send a teaching signal of a size like the gradient to every site of net.keys("post"), or declare '
    "hidden_learning=False",
    "signal": "declare the error signal that hidden layers receive, or keep targets out of what they learn",
    "backprop": "look for a path by which autograd reaches the hidden layers: a missing cut or detach",
    "net_run": "pass everything through net.run(params, x, tap), or credit.blocks and credit.between",
    "memory": _PURE,
    "weight_transport": "give the feedback path weights of its own, kept in the State; or declare weight_transport=True",
    "backward_pass": "cut the graph behind every post site (credit.cut); or declare backward_pass=True",
    "arguments_unmodified": _PURE,
    "deterministic": _PURE,
    "randomness": "draw random numbers in init() and noise() only, from the generator that is given",
    "global_settings": "leave torch's settings alone; convert tensors instead",
    "predict": "let predict() use parameters, state and x only, example by example",
    "state_layout": _STATE,
    "vmap": "replace branches on values by torch.where, and loops over values by tensor operations",
    "checkpoint": _PURE,
    "float32": "make new tensors like those that are there: x.new_zeros(…), torch.randn(…, dtype=x.dtype)",
    "batch_of_one": "avoid statistics over the batch that one example does not have",
    "changing_batch": "keep the size of the batch out of the state's shapes",
    "gpu": "make new tensors where the others are: x.new_zeros(…), or .to(x.device)",
    "examined": "examine it on a task that it serves: `rulezoo verify NAME|FILE --on TASK`",
    "noise": "let predict() compute its answer from parameters and state alone",
    "from_training": "let init(), step() and predict() use nothing but what they are given",
    "other_data": "let init(), step() and predict() use nothing but what they are given",
    # tasks
    "task_spec": _SPEC,
    "budget": "give the class budget = Budget(…), metric = 'accuracy' and chance = 0.1, each annotated as a ClassVar",
    "trainable": "mend what the sentence names; where data are missing, name their folder with --data",
    "data_deterministic": "draw with torch.Generator().manual_seed(…) in data()",
    "disjoint": "split first, then augment or repeat; drop duplicates",
    "no_leak": "take the label out of the inputs",
    "network": "put a rulezoo.Site behind every hidden layer, and the read-out behind the last",
    "seeds_together": "avoid branches on values in the network, and statistics over the batch",
    "loss": "return the mean loss of the batch before the update (a rule), or one loss for each example (a task)",
    "score": "return one score for each example, the higher the better",
    "chance": "measure what guessing scores, and declare it as chance",
    "learnable": "check the loss and the learning rate of the budget",
    # evaluations
    "evaluation_spec": _SPEC,
    "headline": "name the value that the leaderboard shows: headline: ClassVar[str] = 'error'",
    "applies": "examine it on a task that it applies to: `rulezoo verify NAME|FILE --on TASK`; name the folder of data "
    "with --data",
    "values": "return a Measurement whose values are finite, or NaN with the reason in notes",
    "repeatable": "draw random numbers from a generator of its own, whose seed is an option",
    "network_unmodified": "work on network.model(), which is a copy",
    "other_network": "let measure() work on any network that skip() does not refuse, untrained ones too",
    # claims
    "claim_spec": _SPEC,
    "verdict_rule": "state in criterion.verdict_rule what is required, with its thresholds",
    "runs": "correct the rule, the task or the options of the arm; `rulezoo show NAME` lists options",
}
