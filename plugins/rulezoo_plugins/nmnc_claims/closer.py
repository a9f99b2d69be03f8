"""Is one rule's network closer to a brain area than another's? A criterion on evaluations of trained networks.

For dissimilarities (`rsa`): the similarity of a network to a subject is Spearman's correlation of their dissimilarities; the
difference between two networks of the same seed is bootstrapped over stimuli, and over subjects where there are several,
with the same samples for both networks. For responses (`encoding`): the difference of the two networks' held-out
correlations is bootstrapped over neurons.

An interval has two parts, added as variances: Student's t over the seeds of the networks, and 1.96 standard
deviations of the bootstrapped mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rulezoo import claims

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Arrays = Mapping[str, np.ndarray[Any, Any]]
    Runs = Mapping[int, claims.Record]

_T = 1.96  # of a bootstrapped standard deviation
_CONTROLS = ("pixels", "luminance", "untrained")


@dataclass(frozen=True)
class Area:
    """A brain area.

    Attributes:
        name: for readers.
        evaluation: of the study.
        kind: what the evaluation compares.
    """

    name: str
    evaluation: str
    kind: Literal["dissimilarities", "responses"]

    @property
    def prefix(self) -> str:
        """How the names of the values of single sites begin; also the value of the chosen site."""
        return "similarity" if self.kind == "dissimilarities" else "r"


@dataclass(frozen=True)
class Closer(claims.Criterion):
    """Ours minus theirs, at every site and for every area.

    Attributes:
        ours: label of the series that is claimed to be closer.
        theirs: label of the other.
        areas: the brain areas.
        equal: labels of backprop arms with different numbers of epochs; that with the nearest test score is compared.
        draws: bootstrap samples.
        seed: of the bootstrap.
    """

    ours: str
    theirs: str
    areas: tuple[Area, ...]
    equal: tuple[str, ...]
    draws: int = 300
    seed: int = 0

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        return (
            f"For each area and site: the similarity of {self.ours}'s networks to the area minus that of {self.theirs}'s, paired by "
            "seed. Supported if it is above 0 at every site and for every area; not supported if it is below 0 at one. The interval "
            "adds the variances of Student's t over seeds and of a paired bootstrap with "
            f"{self.draws} samples, over stimuli (and subjects, where there are several) for dissimilarities, and over neurons for "
            "responses. Reported and not judged, at the site chosen on other data: whether each network is closer than the best of "
            f"pixels, luminance and the untrained network, and {self.ours} minus backprop at equal score, the backprop run of the "
            "same seed with the nearest test score."
        )

    def judge(self, evidence: claims.Evidence) -> claims.Verdict:
        """See `Criterion`."""
        parts = []
        for area in self.areas:
            for site in self._sites(evidence, area):
                what = f"{area.name}, {site}: similarity of {self.ours} − {self.theirs}".replace(
                    ": ", ", ", 1
                )
                found = self._difference(evidence, area, site)
                parts.append(claims.above(what, found, 0, digits=3, kind=area.name))
        for area in self.areas:
            parts += self._reported(evidence, area)
        return claims.conclude(parts)

    def _reported(self, evidence: claims.Evidence, area: Area) -> list[claims.Part]:
        parts = []
        for label in (self.ours, self.theirs):
            found = claims.over_seeds(
                evidence.of(label), lambda record: evidence.value(area.evaluation, record, "above_control")
            )
            what = f"{area.name}, {label} − best control"
            parts.append(claims.above(what, found, 0, digits=3, kind="above controls", judged=False))
        what = f"{area.name}, {self.ours} − backprop at equal score"
        found = self._against_equal(evidence, area)
        parts.append(claims.above(what, found, 0, digits=3, kind="above backprop", judged=False))
        return parts

    def tables(self, evidence: claims.Evidence) -> list[claims.Table]:
        """See `Criterion`."""
        return [
            table
            for area in self.areas
            for table in (self._by_site(evidence, area), self._controls(evidence, area))
        ]

    def chart(self, evidence: claims.Evidence) -> claims.Chart:
        """See `Criterion`."""
        points = tuple(
            claims.Point(area.name, label, 0.0, value, row=site)
            for area in self.areas
            for site in self._sites(evidence, area)
            for label, of, name in self._drawn(evidence, area)
            for record in evidence.of(of).values()
            if math.isfinite(value := evidence.value(area.evaluation, record, f"{name}/{site}"))
        )
        return claims.Chart(
            points=points,
            x="",
            y={area.name: "similarity to the area" for area in self.areas},
            description=f"A panel for each area, with a row for each site: the mean similarity over seeds of {self.ours}'s, "
            f"{self.theirs}'s, backprop's and untrained networks, and a line for its interval over seeds. The values are in the tables.",
        )

    def _drawn(self, evidence: claims.Evidence, area: Area) -> list[tuple[str, str, str]]:
        """Name of a series, the arm whose runs have it, and what its similarity at a site is called."""
        backprop = [label for label in self.equal if evidence.of(label)][-1:]
        trained = [(label, label, area.prefix) for label in (self.ours, self.theirs, *backprop)]
        return [*trained, ("untrained", self.ours, "untrained")]

    def _sites(self, evidence: claims.Evidence, area: Area) -> list[str]:
        """Sites whose similarity was measured, in the order of the network."""
        prefix = f"{area.prefix}/"
        found: dict[str, None] = {}
        for record in evidence.of(self.ours).values():
            measured = evidence.evaluated.get(area.evaluation, {}).get(record.asked.key)
            for name in measured.values if measured else ():
                if name.startswith(prefix) and name.count("/") == 1:
                    found[name.removeprefix(prefix)] = None
        return list(found)

    def _difference(self, evidence: claims.Evidence, area: Area, site: str) -> claims.Interval:
        """Ours minus theirs at a site."""
        ours, theirs = evidence.of(self.ours), evidence.of(self.theirs)
        name = f"{area.prefix}/{site}"
        plain = claims.paired(ours, theirs, lambda record: evidence.value(area.evaluation, record, name))
        spread = evidence.once(
            (self, area, site), lambda: self._bootstrapped(evidence, area, site, ours, theirs)
        )
        reach = math.hypot(plain.mean - plain.low, _T * spread)
        return claims.Interval(plain.mean, plain.mean - reach, plain.mean + reach, plain.n)

    def _bootstrapped(
        self, evidence: claims.Evidence, area: Area, site: str, ours: Runs, theirs: Runs
    ) -> float:
        """Standard deviation of the mean difference over seeds, by a paired bootstrap."""
        import numpy as np

        gen = np.random.default_rng(self.seed)
        pairs = [
            tuple(evidence.arrays(area.evaluation, runs[seed]) for runs in (ours, theirs))
            for seed in ours
            if seed in theirs
        ]
        pairs = [pair for pair in pairs if all(pair)]
        if not pairs:
            return math.inf
        if area.kind == "responses":
            label = f"r/{site}"
            return spread_over_neurons(
                [tuple(per_neuron(one, label) for one in pair) for pair in pairs], self.draws, gen
            )
        label = f"similarity/{site}"
        models = [tuple(row_of(one, "dissimilarities", label) for one in pair) for pair in pairs]
        return spread_over_stimuli(models, np.asarray(pairs[0][0]["measured"], float), self.draws, gen)

    def _against_equal(self, evidence: claims.Evidence, area: Area) -> claims.Interval:
        def chosen(record: claims.Record) -> float:
            return evidence.value(area.evaluation, record, area.prefix)

        ours = evidence.of(self.ours)
        nearest = {
            seed: found for seed, record in ours.items() if (found := self._nearest(evidence, seed, record))
        }
        return claims.paired(ours, nearest, chosen)

    def _nearest(self, evidence: claims.Evidence, seed: int, record: claims.Record) -> claims.Record | None:
        runs = [some[seed] for label in self.equal if seed in (some := evidence.of(label))]
        return min(runs, key=lambda one: abs(claims.score(one) - claims.score(record)), default=None)

    def _by_site(self, evidence: claims.Evidence, area: Area) -> claims.Table:
        rows = []
        arms = list(evidence.runs.items())
        for site in self._sites(evidence, area):
            name = f"{area.prefix}/{site}"
            shown = [
                claims.over_seeds(runs, lambda r, n=name: evidence.value(area.evaluation, r, n)).text(3)  # type: ignore[misc]
                for _, runs in arms
            ]
            untrained = claims.over_seeds(
                evidence.of(self.ours),
                lambda r, s=site: evidence.value(area.evaluation, r, f"untrained/{s}"),  # type: ignore[misc]
            )
            difference = self._difference(evidence, area, site)
            rows.append((site, *shown, untrained.text(3), difference.text(3, sign=True)))
        head = ("site", *(arm.label for arm, _ in arms), "untrained", f"{self.ours} − {self.theirs}")
        return claims.Table(f"{area.name}: similarity of every site", head, tuple(rows))

    def _controls(self, evidence: claims.Evidence, area: Area) -> claims.Table:
        rows = []
        for arm, runs in evidence.runs.items():
            values = [
                claims.over_seeds(runs, lambda r, n=name: evidence.value(area.evaluation, r, n))  # type: ignore[misc]
                for name in (area.prefix, *_CONTROLS, "above_control")
            ]
            last = claims.sites(runs.values())
            sizes = [claims.over_seeds(runs, claims.at_end(site, "gradient_norm")) for site in last[:1]]
            angles = [claims.over_seeds(runs, claims.at_end(site, "angle")) for site in last[:1]]
            rows.append(
                (
                    arm.label,
                    claims.over_seeds(runs, claims.score).scaled(100).text(1),
                    *(value.text(3) for value in values),
                    angles[0].text(1) if angles else "—",
                    f"{sizes[0].mean:.2g}" if sizes and sizes[0].n else "—",
                )
            )
        head = (
            "series", "test score %", "similarity, site chosen on other data", *_CONTROLS, "above the best control",
            "angle at the widest site, degrees", "size of the true gradient there",
        )  # fmt: skip
        return claims.Table(f"{area.name}: controls", head, tuple(rows))


def row_of(arrays: Arrays, name: str, label: str) -> Array:
    """The row of an array that belongs to a candidate."""
    import numpy as np

    (where,) = np.flatnonzero(np.asarray(arrays["labels"]) == label)
    return np.asarray(arrays[name][where], float)


def per_neuron(arrays: Arrays, label: str) -> Array:
    """Held-out correlation of every neuron of all recordings."""
    import numpy as np

    return np.concatenate(
        [row_of(arrays, name, label) for name in sorted(arrays) if name.startswith("scores/")]
    )


def spread_over_neurons(pairs: list[tuple[Array, ...]], draws: int, gen: np.random.Generator) -> float:
    """Standard deviation of the mean difference over neurons and pairs of networks, neurons resampled."""
    import numpy as np

    difference = np.mean([ours - theirs for ours, theirs in pairs], 0)
    picks = gen.integers(0, len(difference), (draws, len(difference)))
    return float(difference[picks].mean(1).std(ddof=1))


def spread_over_stimuli(
    pairs: list[tuple[Array, ...]], measured: Array, draws: int, gen: np.random.Generator
) -> float:
    """Standard deviation of the mean difference of similarities, stimuli and subjects resampled.

    Args:
        pairs: for each seed the dissimilarities of two networks, upper triangles row by row.
        measured: dissimilarities of subjects, ``(subjects, pairs)``.
        draws: bootstrap samples.
        gen: random numbers.
    """
    import numpy as np
    from scipy.spatial.distance import squareform

    networks = np.stack([squareform(one, checks=False) for pair in pairs for one in pair])
    brains = np.stack([squareform(one, checks=False) for one in measured])
    n, found = brains.shape[1], []
    rows, columns = np.triu_indices(n, 1)
    for _ in range(draws):
        drawn: Array = np.asarray(gen.integers(0, n, n))
        subjects = gen.integers(0, len(brains), len(brains))
        a, b = drawn[rows], drawn[columns]
        different = a != b
        a, b = a[different], b[different]  # an image drawn twice says nothing of itself
        found.append(_mean_difference(spearman(networks[:, a, b], brains[subjects][:, a, b])))
    return float(np.std(found, ddof=1))


def _mean_difference(similarities: Array) -> float:
    """Of first minus second network of every pair, which follow one another, over subjects."""
    return float((similarities[::2] - similarities[1::2]).mean())


def spearman(rows: Array, others: Array) -> Array:
    """Spearman's correlation of every row with every other: ``(a, n), (b, n) → (a, b)``."""
    import numpy as np
    from scipy.stats import rankdata

    def standard(values: Array) -> Array:
        ranks = rankdata(values, axis=1)
        ranks -= ranks.mean(1, keepdims=True)
        return np.asarray(ranks / np.linalg.norm(ranks, axis=1, keepdims=True))

    return np.asarray(standard(rows) @ standard(others).T)
