"""Which GPU a job gets: decided before its process starts CUDA, by what that process can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rulezoo.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"  #: the variable that CUDA reads, once, when it starts


def least_used(gpus: Sequence[str], in_use: Sequence[str | None]) -> str | None:
    """The GPU with the fewest jobs, the first of them when there are several; ``None`` when there is none to choose."""
    return min(gpus, key=in_use.count, default=None)


def chosen(wanted: str, there: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What ``CUDA_VISIBLE_DEVICES`` calls the wanted GPUs.

    Args:
        wanted: how many, as ``"2"``; or which of those that torch sees, as ``"0,3"``.
        there: how many torch sees.
        environ: the environment, which may show torch only some of the machine's, under other numbers.

    Raises:
        UserError: if the words make no sense, or such a GPU is not there.
    """
    words = [word.strip() for word in wanted.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words) or words == ["0"]:
        raise UserError(f"--gpus {wanted}: expected how many, like 2, or which, like 0,3")
    if not there:
        raise UserError(
            f"--gpus {wanted}: torch finds no GPU on this machine; without --gpus it computes on the CPU"
        )
    numbers = [int(word) for word in words] if len(words) > 1 else list(range(int(wanted)))
    if max(numbers) >= there:
        have = "one GPU, with number 0" if there == 1 else f"{there} GPUs, with numbers 0 to {there - 1}"
        raise UserError(
            f"--gpus {wanted}: torch finds {have}; `--gpus {there}` shares out all there is on this machine"
        )
    names = environ[VISIBLE].split(",") if environ.get(VISIBLE) else list(map(str, range(there)))
    return tuple(names[number].strip() for number in numbers)
