"""What every training process needs, imported once in the server that the processes are forked from.

``torch._dynamo`` is imported by torch's optimisers when the first one is made, scikit-learn by the tasks that everybody
begins with: a second each, and more, if they are not here.
Nothing here may start CUDA: a forked process could not use it.
"""

import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch
import torch._dynamo
import torch.optim

import rulezoo.jobs
import rulezoo.runner  # noqa: F401

assert not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch ships no annotation
