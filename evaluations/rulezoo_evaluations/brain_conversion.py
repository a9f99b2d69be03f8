"""Convert two public data sets from their published files into the documented form of brain data.

::

    python -m rulezoo_evaluations.brain_conversion kriegeskorte92 PUBLISHED DATA
    python -m rulezoo_evaluations.brain_conversion v4-cowley PUBLISHED DATA

write ``DATA/kriegeskorte92`` and ``DATA/v4-cowley``. The same files give the same bytes.

``kriegeskorte92``: 92 object images with monkey and human IT (Kriegeskorte et al. 2008,
https://doi.org/10.1016/j.neuron.2008.10.043). ``PUBLISHED`` is the folder ``demos/92imageData`` of rsatoolbox
(https://github.com/rsagroup/rsatoolbox), with ``92_brainRDMs.mat`` and
``Kriegeskorte_Neuron2008_supplementalData.mat``; or a file ``.npz`` with the same content: ``images`` (92, 175, 175,
3), ``monkey_it_rdm`` (92, 92), ``human_it_rdm_subject_session`` (4, 2, 92, 92), ``human_subjects`` (4).

``v4-cowley``: sessions of macaque V4 (Cowley et al. 2023, https://doi.org/10.1101/2023.11.22.568315). ``PUBLISHED``
is a clone of https://github.com/cowleygroup/V4_compact_models, or a folder with some of its ``images_SESSION.zip`` and
``responses_SESSION.npy``; every session with both is converted, with single repeats where they are published.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from rulezoo_evaluations.brain_data import BrainDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SUBJECTS = {"1909": "WE", "2010": "PE", "2102": "PE", "2103": "PE", "2106": "RA", "2110": "RA", "2111": "RA"}
"""The monkey of a V4 session by the year and month in its name."""

_OBJECTS = {
    "name": "92 object images, monkey and human IT",
    "licence": "supplement of the paper, which states no licence; distributed with rsatoolbox (MIT); research use",
    "source": "Kriegeskorte et al. 2008, https://doi.org/10.1016/j.neuron.2008.10.043; "
    "files: https://github.com/rsagroup/rsatoolbox",
}
_V4 = {
    "name": "Macaque V4, natural images",
    "licence": "GPL-3.0 for data, models and code; the photographs belong to others: research use, not to be published",
    "source": "Cowley et al. 2023, https://doi.org/10.1101/2023.11.22.568315; "
    "files: https://github.com/cowleygroup/V4_compact_models",
}


class _Objects(NamedTuple):
    images: NDArray[np.uint8]
    monkey: NDArray[np.float64]
    human: NDArray[np.float64]
    subjects: list[str]


def convert_objects(published: Path, folder: Path) -> None:
    """Write the 92-image set into a new folder; the two sessions of a human subject are averaged."""
    from PIL import Image

    found = _packed(published) if published.suffix == ".npz" else _matlab(published)
    (folder / "stimuli").mkdir()
    for number, image in enumerate(found.images, 1):
        Image.fromarray(image).save(folder / "stimuli" / f"image{number:02d}.png")
    rows, columns = np.triu_indices(len(found.images), 1)
    human = found.human.astype(np.float64).mean(1)
    rdms: dict[str, Any] = {
        "human-it": human[:, rows, columns],
        "monkey-it": found.monkey[rows, columns][None].astype(np.float64),
    }
    np.savez(folder / "rdms.npz", **rdms)
    recordings: dict[str, dict[str, Any]] = {
        "human-it": {"area": "human-it", "subjects": found.subjects},
        "monkey-it": {"area": "monkey-it", "subjects": ["two monkeys, 674 neurons"]},
    }
    (folder / "about.toml").write_text(_toml(_OBJECTS, recordings), encoding="utf-8")


def _packed(path: Path) -> _Objects:
    with np.load(path, allow_pickle=False) as file:
        wanted = ("images", "monkey_it_rdm", "human_it_rdm_subject_session", "human_subjects")
        if missing := [name for name in wanted if name not in file]:
            raise BrainDataError(f"{path} has no array {missing[0]!r}; expected {', '.join(wanted)}")
        images, monkey, human, subjects = (file[name] for name in wanted)
    return _Objects(images, monkey, human, [str(one) for one in subjects])


def _matlab(folder: Path) -> _Objects:
    from scipy.io import loadmat
    from scipy.spatial.distance import squareform

    brain, supplement = (
        _existing(folder / name)
        for name in ("92_brainRDMs.mat", "Kriegeskorte_Neuron2008_supplementalData.mat")
    )
    measured = loadmat(brain)["RDMs"][0]  # (subjects, sessions)
    human = np.array([[session["RDM"] for session in subject] for subject in measured])
    names = [str(subject[0]["name"][0]).split(" | ")[1] for subject in measured]  # "hIT | BE | Session: 1"
    content = loadmat(supplement)
    figure = {str(one["name"][0]): one["RDM"] for one in content["RDMs_mIT_hIT_fig1"][0]}
    monkey = next(pairs for name, pairs in figure.items() if name.startswith("mIT"))
    images = np.stack([one["image"] for one in content["stimuli_92objs"][0]])
    return _Objects(images, np.asarray(squareform(monkey.ravel())), human, names)


def convert_v4(published: Path, folder: Path) -> None:
    """Write every session of V4 that is there into a new folder, with the images as published."""
    sessions = sorted(path.stem.removeprefix("images_") for path in published.rglob("images_*.zip"))
    if not sessions:
        raise BrainDataError(f"{published} has no file images_SESSION.zip; expected one for each session")
    recordings: dict[str, dict[str, Any]] = {}
    responses: dict[str, Any] = {}
    for session in sessions:
        found = _responses(published, session)
        subject = _SUBJECTS.get(session[:4])
        if subject is None:
            raise BrainDataError(
                f"session {session!r} of {published} is not one of the published ones (YYMMDD)"
            )
        images = next(iter(sorted(published.rglob(f"images_{session}.zip"))))
        _unpack(images, folder / "stimuli" / session, found.shape[1])
        responses[session] = found
        recordings[session] = {
            "area": "v4",
            "subjects": [subject],
            "stimuli": session,
            "averaged": len(found) == 1,
        }
    np.savez(folder / "responses.npz", **responses)
    (folder / "about.toml").write_text(_toml(_V4, recordings), encoding="utf-8")


def _responses(published: Path, session: str) -> NDArray[np.float64]:
    """``(repeats, stimuli, neurons)``; one repeat, where only the average is published."""
    found = [
        np.load(path, allow_pickle=False) for path in sorted(published.rglob(f"responses*_{session}.npy"))
    ]
    for array in sorted(found, key=lambda one: -one.ndim):
        if array.ndim in (2, 3):  # neurons, images and repeats; or their average
            whole = array if array.ndim == 3 else array[..., None]
            return np.ascontiguousarray(whole.transpose(2, 1, 0), dtype=np.float64)
    raise BrainDataError(
        f"{published} has images of session {session}, but no responses_{session}.npy of (neurons, images[, repeats])"
    )


def _unpack(path: Path, folder: Path, expected: int) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png"))]
        for name in names:
            (folder / Path(name).name).write_bytes(file.read(name))
    if len(list(folder.iterdir())) != expected:
        raise BrainDataError(f"{path} has {len(names)} images, and there are responses to {expected}")


def _existing(path: Path) -> io.BytesIO:
    if not path.is_file():
        raise BrainDataError(
            f"looked for {path}, which does not exist; see --help for the files that are needed"
        )
    return io.BytesIO(path.read_bytes())


def _toml(about: Mapping[str, str], recordings: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML of texts, numbers, truth values and lists of texts, which are written as in JSON."""
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in about.items()]
    for name, table in recordings.items():
        lines += ["", f"[recordings.{json.dumps(name)}]"]
        lines += [f"{field} = {json.dumps(value, ensure_ascii=False)}" for field, value in table.items()]
    return "\n".join(lines) + "\n"


CONVERSIONS: dict[str, Callable[[Path, Path], None]] = {
    "kriegeskorte92": convert_objects,
    "v4-cowley": convert_v4,
}


def convert(name: str, published: Path, data: Path) -> Path:
    """Convert a data set into a new folder ``data / name``, which appears when it is complete.

    Raises:
        BrainDataError: if the folder exists, or the published files are not as expected.
    """
    target = data / name
    if target.exists():
        raise BrainDataError(f"{target} exists; delete it to convert again")
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data, prefix=f".{name}-") as temporary:
        partial = Path(temporary) / name
        partial.mkdir()
        CONVERSIONS[name](published, partial)
        shutil.move(partial, target)
    return target


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(CONVERSIONS)))
@click.argument("published", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(file_okay=False, path_type=Path))
def main(name: str, published: Path, data: Path) -> None:
    """Convert one data set."""
    try:
        target = convert(name, published, data)
    except BrainDataError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {target}")


if __name__ == "__main__":
    main()
