"""The geometry of credit at a site: where the exact Jacobian of the output lies, against the manifold of activity.

Kang, Richards, Sabatini 2026 (arXiv 2601.02636) claim that in trained networks the row space of the Jacobian lies in
the neural manifold. Here both are exact: one pull-back for each output, and the principal subspace of activity.

Letters: b examples, o outputs of one example (time counts as outputs), v visits of a site (1, but for unrolled ones),
n units, d dimensions of the manifold. A Jacobian is ``(b, o, v, n)``, an error, the derivative of the loss by the
output, ``(b, o)``, and the gradient at a site g = Jᵀe ``(b, v, n)``. The visits of a site share one manifold, and
energies add up over them, so that a visit counts by the energy it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm

from rulezoo import credit, manifold
from rulezoo.measures.dimension import principal_angles
from rulezoo.net import Net, Tensors

_TOP = 10  # directions of the row space that are compared with the manifold
_ROWS = 640  # about so many rows of Jacobians are kept to find them


def visits_of_sites(net: Net, kind: str = "post") -> dict[str, list[str]]:
    """Name of every site of one kind → the keys of its visits, in the order of the forward pass."""
    sites: dict[str, list[str]] = {}
    for key, visit in net.visits.items():
        if visit.kind == kind:
            sites.setdefault(visit.site, []).append(key)
    return sites


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Angle of each row of ``a`` with the same row of ``b``, ``(rows,)``, in degrees; nan where one of them is zero.

    Kahan's formula in float64: unlike the arc cosine it keeps its precision for small angles.
    """
    u, v = (_unit(credit.rows(rows).cpu().double()) for rows in (a, b))
    return torch.rad2deg(2 * torch.atan2(vector_norm(u - v, dim=1), vector_norm(u + v, dim=1)))


def _unit(rows: Tensor) -> Tensor:
    rows = rows / rows.abs().amax(1, keepdim=True)  # so that squares neither vanish nor overflow
    units: Tensor = rows / vector_norm(rows, dim=1, keepdim=True)
    return units


def jacobians(net: Net, params: Tensors, x: Tensor, sites: Mapping[str, Sequence[str]]) -> Tensors:
    """Exact derivative of the outputs by the activity at every site: site → ``(b, o, v, n)``; o pull-backs.

    Args:
        net: the network.
        params: its parameters.
        x: inputs, ``(b, ...)``.
        sites: as from `visits_of_sites`.
    """
    keys = [key for visits in sites.values() for key in visits]

    def outputs(offsets: Tensors) -> Tensor:
        return credit.rows(net.run(params, x, lambda key, h: h + offsets[key] if key in offsets else h))

    zeros = {key: net.zeros(key, len(x)) for key in keys}
    result = torch.func.vjp(outputs, zeros)
    y, pull = result[0], result[1]
    rows = [pull(_one_hot(y, j))[0] for j in range(y.shape[1])]
    return {
        site: torch.stack([torch.stack([credit.rows(row[k]) for k in visits], 1) for row in rows], 1)
        for site, visits in sites.items()
    }


def _one_hot(like: Tensor, column: int) -> Tensor:
    hot = torch.zeros_like(like)
    hot[:, column] = 1
    return hot


def random_basis(n: int, d: int, gen: torch.Generator, like: Tensor) -> Tensor:
    """The control: an orthonormal basis ``(n, d)`` of a random subspace."""
    basis: Tensor = torch.linalg.qr(torch.randn(n, d, generator=gen, dtype=torch.float64))[0]
    return basis.to(like)


class Alignment:
    """How the Jacobian at one site lies to a manifold, over examples that are added chunk by chunk.

    Args:
        basis: orthonormal columns ``(n, d)``, as from `rulezoo.manifold.principal_basis`; columns of zeros do not count.
        gen: for the random subspace of the same dimension, the control.
    """

    def __init__(self, basis: Tensor, gen: torch.Generator) -> None:
        self.basis = basis[:, basis.square().sum(0) > 0.5]
        n, d = self.basis.shape
        self.control = random_basis(n, d, gen, basis)
        self.examples = 0
        self._energies = torch.zeros(3, dtype=torch.float64)  # of J, of JU, of J in the control
        self._total = torch.zeros(
            ()
        )  # ΣJ, (o, v * n), and ΣJJᵀ, (o, o); a scalar may be added to any device's
        self._second = torch.zeros(())
        self._rows: list[Tensor] = []  # (o * v, n) of the first examples
        self._gradients: list[Tensor] = []
        self._errors: list[Tensor] = []

    def add(self, jacobian: Tensor, error: Tensor) -> None:
        """Take in some examples: their Jacobian ``(b, o, v, n)`` and error ``(b, o)``."""
        o, v, n = jacobian.shape[1:]
        parts = jacobian, jacobian @ self.basis, jacobian @ self.control
        self._energies += torch.stack([part.square().sum().cpu().double() for part in parts])
        flat = jacobian.flatten(2)  # (b, o, v * n)
        self._total = self._total + flat.sum(0)
        self._second = self._second + (flat @ flat.mT).sum(0)
        wanted = min(64, max(4, _ROWS // (o * v))) - self.examples
        self._rows += list(jacobian[: max(0, wanted)].reshape(-1, o * v, n))
        self._gradients.append(torch.einsum("bo,bovn->bvn", error, jacobian))
        self._errors.append(error)
        self.examples += len(error)

    def numbers(self) -> dict[str, float]:
        """What came out, by the names of `rulezoo.measures.probes.QUANTITIES`; nan where there is nothing to tell."""
        gradients, errors = torch.cat(self._gradients), torch.cat(self._errors)
        mean = (errors @ (self._total / self.examples)).view_as(gradients)  # J̄ᵀe of every example
        n, d = self.basis.shape
        energy, inside, control = self._energies.tolist()
        alpha = _ratio(inside, energy)
        own = torch.einsum("bo,op,bp->", errors, self._second / self.examples, errors)
        return {
            "units": n,
            "rank": d,
            "alpha": alpha,
            "chance": d / n,
            "margin": alpha - d / n,
            "alpha_random": _ratio(control, energy),
            "gradient_norm": (gradients.square().sum().item() / self.examples) ** 0.5,
            "alpha_gradient": _share(gradients, self.basis),
            "alpha_mean_gradient": _share(mean, self.basis),
            "ceiling": angles(gradients, mean).nanmean().item(),
            "spread": _ratio(own.item(), mean.square().sum().item()),
            **self._row_space(),
        }

    def _row_space(self) -> dict[str, float]:
        found = row_angles(torch.cat(self._rows).cpu(), self.basis.cpu())
        return {
            f"row_angle_{name}": found[place] if found else torch.nan
            for name, place in (("smallest", 0), ("median", len(found) // 2), ("largest", -1))
        }


def row_angles(rows: Tensor, basis: Tensor, top: int = _TOP) -> tuple[float, ...]:
    """Principal angles, in degrees and smallest first, between the leading row space of Jacobians and a manifold.

    Args:
        rows: rows of Jacobians of many examples, ``(rows, n)``.
        basis: orthonormal columns, ``(n, d)``.
        top: take so many right-singular vectors of ``rows``, if there are so many, and at most d.

    Returns:
        as many angles as vectors were taken; none where rows or basis are zero.
    """
    top = min(top, *basis.shape)
    if not top or not rows.any():
        return ()
    leading = manifold.principal_basis(rows.double(), top, centred=False)
    leading = leading[:, leading.square().sum(0) > 0.5]
    return principal_angles(leading.numpy(), basis.double().numpy()).degrees


def _share(gradients: Tensor, basis: Tensor) -> float:
    return _ratio((gradients @ basis).square().sum().item(), gradients.square().sum().item())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
