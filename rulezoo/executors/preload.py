"""What every training process needs, imported once in the server that the processes are forked from.

``torch._dynamo`` is imported by torch's optimisers when the first one is made, scikit-learn by the tasks that everybody
begins with: a second each, and more, if they are not here. What every record says of the machine and of the code is
asked here once, too.
Nothing here may start CUDA: a forked process could not use it.
"""

import warnings

import filelock  # noqa: F401
import psutil  # noqa: F401
import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch
import torch._dynamo
import torch.optim

import rulezoo.comparison.jobs
import rulezoo.training.runner  # noqa: F401
from rulezoo.discovery import fingerprint
from rulezoo.processes.supervisor import become_reaper
from rulezoo.results import provenance

become_reaper()  # of what trainings started whose supervisors were killed
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")  # theirs

provenance.checkout()
provenance.cpu()
fingerprint.core()

assert not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch ships no annotation
