"""What a job asks SLURM for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from rulezoo.errors import UserError, unknown

Word = Annotated[str, msgspec.Meta(pattern=r"^[^\s'\"]+$")]
Count = Annotated[int, msgspec.Meta(ge=1)]

_WARNING = 90  # seconds before the end at which SLURM says that it comes, where there are so many


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each job of a comparison asks for.

    Attributes:
        partition: where; ``None`` = the cluster's default.
        account: who pays.
        qos: quality of service.
        constraint: features that the node must have.
        time: minutes of one turn; a job that takes longer is requeued, and resumes from its last checkpoint.
        resumes: how often that may happen for lack of time; pre-emptions do not count.
        cpus: processor cores, which are torch's threads.
        memory: in GB; ``None`` = the cluster's default.
        gpus: how many.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    time: Count = 60
    resumes: Annotated[int, msgspec.Meta(ge=0)] = 3
    cpus: Count = 1
    memory: Annotated[float, msgspec.Meta(gt=0)] | None = None
    gpus: Annotated[int, msgspec.Meta(ge=0)] = 0

    @classmethod
    def of(cls, words: Mapping[str, str]) -> Request:
        """From what a user wrote.

        Raises:
            UserError: an unknown name, or an invalid value.
        """
        for name in words:
            if name not in cls.__struct_fields__:
                raise unknown(
                    "option of SLURM",
                    name,
                    cls.__struct_fields__,
                    f"known: {', '.join(cls.__struct_fields__)}",
                )
        try:
            return msgspec.convert(dict(words), cls, strict=False)
        except msgspec.ValidationError as error:
            sentence, _, place = str(error).partition(" - at `$.")
            name = place.removesuffix("`")
            raise UserError(f"--slurm {name}={words.get(name)}: {sentence.replace('`', '')}") from error

    @property
    def warning(self) -> int:
        """Seconds before the end of a turn at which SLURM says that it comes."""
        return min(_WARNING, 60 * self.time // 4)

    def parameters(self, at_a_time: int | None) -> dict[str, Any]:
        """As submitit has it.

        Args:
            at_a_time: how many jobs of an array may run at the same time.
        """
        named = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "time": self.time,
            "cpus_per_task": self.cpus,
            "mem": None if self.memory is None else f"{round(1024 * self.memory)}M",
            "gpus_per_node": self.gpus or None,
            "signal_delay_s": self.warning,
            "array_parallelism": at_a_time,
            "additional_parameters": {"requeue": True},
        }
        return {name: value for name, value in named.items() if value is not None}
