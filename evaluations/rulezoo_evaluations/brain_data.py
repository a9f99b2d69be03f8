"""Measured brain data in a folder: stimuli, responses or representational dissimilarities, and what they are.

::

    NAME/                   below the folder of --data or $RULEZOO_DATA
        about.toml
        stimuli/            images; or one folder of images for each set of stimuli
        rdms.npz            recording -> (subjects, pairs), and/or
        responses.npz       recording -> (repeats, stimuli, neurons)

``about.toml``::

    name = "92 object images"
    licence = "…"                     # of the data, in words
    source = "https://doi.org/…"      # where they were published

    [recordings.human-it]             # one table for each array of the two files
    area = "human-it"
    subjects = ["BE", "KO"]           # one for each row of rdms.npz; exactly one for responses
    stimuli = "set-1"                 # optional: the folder below stimuli/
    degrees = 2.9                     # optional: side of a stimulus, in degrees of visual angle
    averaged = true                   # optional: whether repeats were averaged before publication

Stimuli are in the alphabetical order of their file names. The pairs of a dissimilarity matrix are its upper
triangle, row by row, without the diagonal. In responses, NaN means that a stimulus was repeated less often; every
stimulus needs at least one response of every neuron.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rulezoo import DataMissing, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"))
_FIELDS = ("name", "licence", "source")


class BrainDataError(UserError, ValueError):
    """Brain data that do not have the documented form; the message says what, where, and what was expected."""


@dataclass(frozen=True)
class Recording:
    """What was measured with one set of stimuli.

    Attributes:
        name: its key in ``rdms.npz`` or ``responses.npz``.
        area: the brain area.
        subjects: one for each row of `rdms`; exactly one for responses.
        stimuli: the images, in the order of the measurements.
        rdms: dissimilarities, ``(subjects, pairs)``; or ``None``.
        responses: ``(repeats, stimuli, neurons)``, NaN where a stimulus was repeated less often; or ``None``.
    """

    name: str
    area: str
    subjects: tuple[str, ...]
    stimuli: tuple[Path, ...]
    rdms: Array | None = None
    responses: Array | None = None

    @property
    def mean_responses(self) -> Array:
        """Responses averaged over repeats, ``(stimuli, neurons)``."""
        import numpy as np

        if self.responses is None:
            raise BrainDataError(
                f"recording {self.name!r} has only dissimilarities (rdms.npz); responses (responses.npz) are needed"
            )
        return np.asarray(np.nanmean(self.responses, axis=0))


@dataclass(frozen=True)
class BrainData:
    """A folder of brain data; measurements are read when an area is asked for.

    Attributes:
        folder: where it is.
        about: the content of ``about.toml``.
    """

    folder: Path
    about: Mapping[str, Any]

    @property
    def areas(self) -> tuple[str, ...]:
        """The areas, in alphabetical order."""
        return tuple(sorted({table["area"] for table in self.about["recordings"].values()}))

    def recordings(self, area: str, names: str = "all") -> list[Recording]:
        """The recordings of an area, in alphabetical order, with everything that was measured.

        Args:
            area: one of `areas`.
            names: of recordings, separated by commas; ``"all"`` = every one of the area.

        Raises:
            BrainDataError: if there is no such area or recording, or if its measurements do not have the documented
                form.
        """
        tables = self.about["recordings"]
        if area not in self.areas:
            raise BrainDataError(_unknown(f"{self.folder} has no area", area, self.areas))
        known = sorted(name for name, table in tables.items() if table["area"] == area)
        chosen = known if names == "all" else [name.strip() for name in names.split(",")]
        for name in chosen:
            if name not in known:
                raise BrainDataError(_unknown(f"{self.folder} has no recording of {area}", name, known))
        return [self._recording(name, tables[name]) for name in chosen]

    def _recording(self, name: str, table: Mapping[str, Any]) -> Recording:
        subjects = tuple(table["subjects"])
        stimuli = _stimuli(self.folder / "stimuli" / table.get("stimuli", ""))
        where = f"{self.folder}: recording {name!r}"
        if name in _keys(self.folder / "rdms.npz"):
            rdms = _array(self.folder / "rdms.npz", name)
            _check_rdms(where, rdms, subjects, len(stimuli))
            return Recording(name, table["area"], subjects, stimuli, rdms=rdms)
        responses = _array(self.folder / "responses.npz", name)
        _check_responses(where, responses, subjects, stimuli)
        return Recording(name, table["area"], subjects, stimuli, responses=responses)


def read(root: Path | None, name: str) -> BrainData:
    """The brain data in folder ``name`` below ``root``; stimuli and measurements are read later.

    Raises:
        DataMissing: if there is no such folder.
        BrainDataError: if ``about.toml`` is missing or incomplete, or does not describe what is there.
    """
    if root is None:
        raise DataMissing(
            f"the brain data {name!r} need a data folder and none was given; point --data (or $RULEZOO_DATA) at the "
            f"folder that holds {name}/ (docs/brain-data.md describes how to create it)"
        )
    folder = root / name
    if not folder.is_dir():
        there = sorted(path.parent.name for path in root.glob("*/about.toml"))
        known = f"brain data in {root}: {', '.join(there) or 'none'}"
        raise DataMissing(
            f"looked for brain data in {folder}, which does not exist; {_near(name, there)}{known}; check --data or "
            "$RULEZOO_DATA, or convert published files as docs/brain-data.md describes"
        )
    about = _about(folder / "about.toml")
    measured: set[str] = set()
    for file in ("rdms.npz", "responses.npz"):
        if twice := sorted(measured & _keys(folder / file)):
            raise BrainDataError(
                f"{folder}: recording {twice[0]!r} is in rdms.npz and in responses.npz; rename one"
            )
        measured |= _keys(folder / file)
    if not measured:
        raise BrainDataError(
            f"{folder} has neither rdms.npz nor responses.npz with an array; expected at least one"
        )
    described = set(about["recordings"])
    if lacking := sorted(described - measured):
        raise BrainDataError(
            f"{folder}: recording {lacking[0]!r} of about.toml has no array in rdms.npz or responses.npz; they have "
            f"{', '.join(sorted(measured))}"
        )
    if strange := sorted(measured - described):
        raise BrainDataError(
            f"{folder}: about.toml does not describe {strange[0]!r}; add [recordings.{strange[0]}]"
        )
    return BrainData(folder, about)


def _about(path: Path) -> Mapping[str, Any]:
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrainDataError(
            f"{path} does not exist; it must say what the data are (docs/brain-data.md)"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BrainDataError(f"{path} cannot be read as TOML: {error}") from None
    for field in _FIELDS:
        if not isinstance(about.get(field), str):
            raise BrainDataError(f"{path}: {field} must be a text, got {about.get(field)!r}")
    _check_keys(f"{path}:", about, (*_FIELDS, "recordings"))
    recordings = about.get("recordings")
    if not (isinstance(recordings, dict) and recordings):
        raise BrainDataError(
            f"{path} describes no recordings; expected a table [recordings.NAME] for each array"
        )
    for name, table in recordings.items():
        _check_table(f"{path}: recordings.{name}", table)
    return about


def _check_table(where: str, table: Any) -> None:  # noqa: ANN401  whatever a user wrote
    if not isinstance(table, dict):
        raise BrainDataError(f"{where} must be a table with area and subjects, got {table!r}")
    if not isinstance(table.get("area"), str):
        raise BrainDataError(f"{where}: area must be a text, got {table.get('area')!r}")
    subjects = table.get("subjects")
    if not (isinstance(subjects, list) and subjects and all(isinstance(one, str) for one in subjects)):
        raise BrainDataError(
            f"{where}: subjects must be a list of texts, like ['S1', 'S2'], got {subjects!r}"
        )
    _check_keys(f"{where}:", table, ("area", "subjects", "stimuli", "degrees", "averaged"))
    degrees = table.get("degrees", 1.0)
    if isinstance(degrees, bool) or not isinstance(degrees, int | float) or not 0 < degrees < math.inf:
        raise BrainDataError(f"{where}: degrees must be a number above 0, got {degrees!r}")
    if not isinstance(table.get("averaged", False), bool):
        raise BrainDataError(f"{where}: averaged must be true or false, got {table['averaged']!r}")
    if not isinstance(table.get("stimuli", ""), str):
        raise BrainDataError(f"{where}: stimuli must be a folder below stimuli/, got {table['stimuli']!r}")


def _check_keys(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise BrainDataError(
                f"{where} unknown key {key!r}; {_near(key, known)}expected {', '.join(known)}"
            )


def _stimuli(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise BrainDataError(f"looked for stimuli in {folder}, which does not exist; put the images there")
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMAGES and path.name[0] != ".")
    found = tuple(sorted(files, key=lambda path: path.name))
    if not found:
        raise BrainDataError(f"{folder} has no images ({', '.join(sorted(IMAGES))}); put the stimuli there")
    return found


def _keys(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    try:
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy") for name in file.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise BrainDataError(f"{path} cannot be read as an .npz file: {error}") from None


def _array(path: Path, name: str) -> Array:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[name], dtype=np.float64)
    except Exception as error:  # noqa: BLE001  zip files and arrays are bad in many ways
        raise BrainDataError(f"{path}: {name!r} cannot be read as an array of numbers: {error}") from None


def _check_rdms(where: str, rdms: Array, subjects: tuple[str, ...], stimuli: int) -> None:
    import numpy as np

    if rdms.ndim != 2:
        raise BrainDataError(f"{where}: rdms must have the shape (subjects, pairs), got {rdms.shape}")
    if len(rdms) != len(subjects):
        raise BrainDataError(
            f"{where} has dissimilarities of {len(rdms)} subjects, and about.toml names {len(subjects)}"
        )
    measured = (1 + math.isqrt(1 + 8 * rdms.shape[1])) // 2
    if measured * (measured - 1) // 2 != rdms.shape[1]:
        raise BrainDataError(
            f"{where} has {rdms.shape[1]} pairs, which are not n(n-1)/2 for any number of stimuli n; expected "
            f"{stimuli * (stimuli - 1) // 2} for the {stimuli} images in stimuli/"
        )
    _check_count(where, measured, stimuli)
    if bad := int((~np.isfinite(rdms)).sum()):
        raise BrainDataError(
            f"{where}: {bad} of {rdms.size} dissimilarities are NaN or infinite; leave out the stimuli or subjects "
            "they belong to"
        )


def _check_responses(
    where: str, responses: Array, subjects: tuple[str, ...], stimuli: tuple[Path, ...]
) -> None:
    import numpy as np

    if responses.ndim != 3 or 0 in responses.shape:
        raise BrainDataError(
            f"{where}: responses must have the shape (repeats, stimuli, neurons), got {responses.shape}"
        )
    if len(subjects) != 1:
        raise BrainDataError(
            f"{where} must have one subject, about.toml names {len(subjects)}; use one recording for each"
        )
    _check_count(where, responses.shape[1], len(stimuli))
    if bad := int(np.isinf(responses).sum()):
        raise BrainDataError(
            f"{where}: {bad} responses are infinite; NaN stands for a repeat that was not shown"
        )
    missing = np.argwhere(np.isnan(responses).all(axis=0))
    if len(missing):
        stimulus, neuron = missing[0]
        raise BrainDataError(
            f"{where}: all repeats are NaN in {len(missing)} cases, the first one neuron {neuron} and stimulus "
            f"{stimuli[stimulus].name}; leave out such neurons or stimuli"
        )


def _check_count(where: str, measured: int, stimuli: int) -> None:
    if measured < stimuli:
        raise BrainDataError(
            f"{where} has measurements of {measured} stimuli, and there are {stimuli} images in stimuli/: "
            f"{stimuli - measured} stimuli without responses; remove those images, or give the recording a folder of "
            "its own (stimuli = …)"
        )
    if measured > stimuli:
        raise BrainDataError(
            f"{where} has measurements of {measured} stimuli, and there are only {stimuli} images in stimuli/; add the "
            "missing ones"
        )


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def _unknown(problem: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    return f"{problem} {name!r}; {_near(name, known)}it has {', '.join(known)}"


def digest(recordings: Iterable[Recording]) -> str:
    """Hexadecimal digits of the measurements and the stimuli: they depend on the content, and on no path."""
    import numpy as np

    found = hashlib.blake2b(digest_size=16)
    for one in recordings:
        found.update(repr([one.name, one.area, one.subjects]).encode())
        for array in (one.rdms, one.responses):
            if array is not None:
                found.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        for path in one.stimuli:
            found.update(path.name.encode(errors="surrogateescape") + path.read_bytes())
    return found.hexdigest()
