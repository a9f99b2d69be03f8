"""What every training process needs, imported once in the server that the processes are forked from.

``torch._dynamo`` is imported by torch's optimisers when the first one is made: a second and more, if it is not here.
Nothing here may start CUDA: a forked process could not use it.
"""

import torch
import torch._dynamo
import torch.optim

import rulezoo.jobs
import rulezoo.runner  # noqa: F401

assert not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch ships no annotation
