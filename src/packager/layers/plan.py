"""Which layers an image has, in which order, and what each is a function of.

The order is from stable to volatile, because an engine reuses only a prefix of the chain:
base and its bytecode, OS packages, big wheels one by one, runtime, medium wheels together, small
wheels together, model, code.  The bytecode of each kind of wheels comes directly after them.
"""

from __future__ import annotations

import hashlib
import platform as host
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packager import formats, runtime
from packager.errors import ClaimError
from packager.files import canonical_json
from packager.layers import tar, tree
from packager.layers.bytecode import Interpreter, compile_entries
from packager.layers.making import Bench, Recipe
from packager.layers.site import Site
from packager.layers.tar import Entry, data_entry
from packager.lock.debian_pins import DebPin
from packager.lock.image_pins import ImagePins
from packager.lock.lockfile import Lock, WheelPin
from packager.project import MACHINES, PLATFORMS, Project
from packager.store import Store

__all__ = ["Plan"]

_BIG = 3_000_000
"""A wheel of this many bytes or more gets a layer of its own, shared by all who use it."""

_MOST_BIG = 32
"""At most so many: an engine takes 125 layers, and is slow with many."""

_MEDIUM = 200_000
"""Smaller wheels, most of a project's, are in a layer without the larger ones: when one of them
changes, an engine takes it in anew, and it is as slow with many files as with many bytes."""


class Plan:
    """The layers of one platform's image.

    Wheels that share a path are in one layer.  Who shares is known from the wheels' tables of
    contents, read once and noted; until then the plan goes by the guess that nobody does.

    Parameters
    ----------
    project, lock, platform
        What to build, for where.
    store : Store
        Where it is noted which wheels share paths.
    """

    def __init__(self, project: Project, lock: Lock, platform: str, store: Store) -> None:
        self.project, self.lock, self.platform, self.store = project, lock, platform, store
        self.pins = lock.wheels_for(platform)
        self.image = lock.images.get(platform)
        self.debs = lock.debs_of(platform)
        self.compiles_on = _compiles_on(lock, platform)
        self.site = Site.of(project.offered)
        self._contents: dict[str, list[Entry]] = {}  # of wheels: layer, bytecode and check ask
        self.interpreter: Interpreter | None = None
        # What bytecode is a function of, besides the sources.
        self.compiler: list[Any] = []
        if project.bytecode:
            prefix = project.offered.prefix
            machine = PLATFORMS[self.compiles_on]
            self.interpreter = Interpreter(project.python, machine, prefix)
            minimal = f"python{project.python}-minimal"
            binary = [pin.sha256 for pin in self.debs if pin.name == minimal]
            if self.image:
                binary = [layer.diff_id for layer in self.image.layers]
            self.compiler = [formats.BYTECODE, *binary]
        self._paths_key = _key("paths", *self._key_of(self.pins))
        self._paths = self.store.note("paths", self._paths_key)

    def recipes(
        self, model: tree.Model, code: list[tuple[str, bytes]], facts: Mapping[str, bytes]
    ) -> list[Recipe]:
        """List how each layer is made, bottom first; the first is always the base.

        Parameters
        ----------
        model : tree.Model
            The model, as `tree.read_model` reads it.
        code : list of (str, bytes)
            The project's files, as `tree.own_files` reads them.
        facts : mapping of str to bytes
            Files for the folder `tree.ROOT`.
        """
        layers = [*self._lowest(), *self._wheels(self._runtime())]
        return [*layers, self._model(model), self._code(code, facts)]

    def below(self) -> list[Recipe]:
        """List how the layers are made that hold nothing of packager's or the project's own."""
        return [*self._lowest(), *self._wheels()]

    def _lowest(self) -> list[Recipe]:
        return self._image() if self.image else self._base()

    @property
    def order(self) -> list[str]:
        """Digests of the locked files in the order in which their layers are stacked."""
        pins = [pin for kind in self._sizes() for pin in kind]
        bases = dict.fromkeys((self.compiles_on, self.platform))
        below = [pin for platform in bases for pin in self.lock.base_of(platform)]
        return [pin.sha256 for pin in [*below, *pins]]

    @property
    def root(self) -> Recipe | None:
        """What the compiling Python is run from, where that is not the image's first layer."""
        if image := self.lock.images.get(self.compiles_on):
            return self._programs(image, self.compiles_on)
        return None if self.compiles_on == self.platform else self._assembled(self.compiles_on)

    def _programs(self, image: ImagePins, platform: str) -> Recipe:
        """Make one layer of what it takes to run the Python of a base that is an image."""
        layers = tuple(self._layers(image))
        target = self.project.offered

        def entries(bench: Bench) -> list[Entry]:
            from packager.layers import image_root

            return image_root.programs(self._stacked(layers, bench), target, PLATFORMS[platform])

        key = _key("root", asdict(target), [layer.unpacks for layer in layers])
        return Recipe("base", "its programs", key, 1, entries, parts=layers)

    def _layers(self, image: ImagePins) -> Iterator[Recipe]:
        """List the layers of a base, which are stacked as they are."""
        for layer in image.layers:
            yield Recipe(
                "base",
                self.project.base,
                _key("layer of a base", layer.diff_id),
                1,
                lambda _: [],
                needs=(layer.sha256,),
                unpacks=layer.diff_id,
            )

    def _image(self) -> list[Recipe]:
        assert self.image is not None
        recipes = list(self._layers(self.image))
        if interpreter := self.interpreter:
            programs = self._programs(self.image, self.platform)
            library = f"{interpreter.prefix}/lib/python{interpreter.version}/"
            recipes.append(
                Recipe(
                    "bytecode",
                    "of the base",
                    _key("bytecode", self.compiler),
                    1,
                    lambda bench: compile_entries(
                        [one for one in _read(programs, bench) if one.path.startswith(library)],
                        interpreter.tag,
                        bench.python(interpreter),
                    ),
                    parts=(programs,),
                    compiles=True,
                )
            )
        if self.debs:
            layers = tuple(self._layers(self.image))

            def entries(bench: Bench) -> list[Entry]:
                root = self._stacked(layers, bench)
                return _image_entries(root, self.debs, PLATFORMS[self.platform], bench)

            recipes.append(
                self._os_packages(
                    ["image", [layer.unpacks for layer in layers]],
                    entries,
                    needs=tuple(pin.sha256 for pin in self.debs),
                    parts=layers,
                )
            )
        return recipes

    def _stacked(self, layers: Sequence[Recipe], bench: Bench) -> dict[str, Entry]:
        from packager.layers import image_root

        stack = [bench.made[layer.key].path for layer in layers]
        return image_root.entries(stack, self.project.base)

    def reads_wheels(self, code: list[tuple[str, bytes]]) -> bool:
        """Tell whether `settle` or `check` will read the wheels, made into layers or not."""
        return self._paths is None or bool(self._tops & self._tops_of(self._own(code)))

    def settle(self, path: Callable[[str], Path]) -> bool:
        """Learn which wheels share paths; True where that changes the recipes.

        Parameters
        ----------
        path : callable
            Says where a locked file lies; asked only where `reads_wheels` said so.
        """
        if self._paths is not None:
            return False
        owned = {pin.file: self._files(pin, path) for pin in self.pins}
        owners = Counter(one for paths in owned.values() for one in paths)
        sharing = [file for file, paths in owned.items() if any(owners[one] > 1 for one in paths)]
        guessed = self._sizes()
        self._paths = [sharing, sorted({self._top(one) for one in owners})]
        self.store.write_note("paths", self._paths_key, self._paths)
        return self._sizes() != guessed

    def _files(self, pin: WheelPin, path: Callable[[str], Path]) -> list[str]:
        """List the paths of a wheel's files; a wheel is read for that but once."""
        key = _key("files", *self._key_of([pin]))
        if not isinstance(files := self.store.note("files", key), list):
            files = [one.path for one in self._entries(pin, path(pin.sha256))]
            self.store.write_note("files", key, files)
        return files

    def check(self, code: list[tuple[str, bytes]], path: Callable[[str], Path]) -> None:
        """Refuse code that would replace files of a wheel or of the runtime.

        Parameters
        ----------
        code : list of (str, bytes)
            As for `recipes`.
        path : callable
            As for `settle`, which comes first.

        Raises
        ------
        ClaimError
            When it would; names both.
        """
        own = self._own(code)
        tops = self._tops_of(own)
        owners = [entry for entry in self._runtime_entries() if self._top(entry.path) in tops]
        if tops & self._tops:
            owners += [entry for pin in self.pins for entry in self._entries(pin, path(pin.sha256))]
        owner_of = {entry.path: entry.owner for entry in owners}
        for entry in own:
            if entry.path in owner_of:
                raise ClaimError(
                    f"would replace /{entry.path} of {owner_of[entry.path]}",
                    where=entry.owner,
                    hint="Give your package another name.",
                )

    def _assembled(self, platform: str) -> Recipe:
        """Make the first layer of an image whose base is assembled."""
        python = self.project.python
        base = [pin for pin in self.lock.debs_of(platform) if pin.role == "base"]
        return Recipe(
            "base",
            f"{len(base)} packages",
            _key("base", _base_key(base, python)),
            len(base),
            lambda bench: _base_entries(base, python, bench),
            needs=tuple(pin.sha256 for pin in base),
        )

    def _base(self) -> list[Recipe]:
        python = self.project.python
        base = [pin for pin in self.debs if pin.role == "base"]
        extra = [pin for pin in self.debs if pin.role == "extra"]
        base_key = _base_key(base, python)
        lowest = self._assembled(self.platform)
        recipes = [lowest]
        if interpreter := self.interpreter:
            recipes.append(
                Recipe(
                    "bytecode",
                    "of the base",
                    _key("bytecode", self.compiler, base_key),
                    1,
                    lambda bench: compile_entries(
                        _library(_read(lowest, bench), python),
                        interpreter.tag,
                        bench.python(interpreter),
                    ),
                    parts=(lowest,),
                    compiles=True,
                )
            )
        if extra:
            recipes.append(
                self._os_packages(
                    [base_key],
                    lambda bench: _extra_entries(base, extra, bench),
                    needs=tuple(pin.sha256 for pin in [*base, *extra]),
                )
            )
        return recipes

    def _os_packages(
        self,
        below: list[Any],
        entries: Callable[[Bench], list[Entry]],
        *,
        needs: tuple[str, ...],
        parts: tuple[Recipe, ...] = (),
    ) -> Recipe:
        """Put packages of the project's own on top of a base."""
        extra = [pin for pin in self.debs if pin.role == "extra"]
        return Recipe(
            "os-packages",
            ", ".join(pin.name for pin in extra),
            _key("os-packages", *below, [pin.sha256 for pin in extra]),
            len(extra),
            entries,
            needs=needs,
            parts=parts,
        )

    def _wheels(self, *between: Recipe) -> Iterator[Recipe]:
        """List what is made of wheels; big ones change least, and lie below what comes between."""
        big, medium, small = self._sizes()
        yield from (self._wheel_layer([pin], f"{pin.name} {pin.version}") for pin in big)
        yield from self._bytecode("big", big)
        yield from between
        for name, pins in (("medium", medium), ("small", small)):
            if pins:
                yield self._wheel_layer(pins, f"{len(pins)} {name} wheels")
            yield from self._bytecode(name, pins)

    def _bytecode(self, name: str, pins: Sequence[WheelPin]) -> Iterator[Recipe]:
        if self.interpreter and pins:
            parts = tuple(self._bytecode_of(pin, self.interpreter) for pin in pins)
            yield Recipe(
                "bytecode",
                f"of the {name} wheels",
                _key("bytecode", self.compiler, *self._key_of(pins)),
                1,
                lambda bench: [
                    entry
                    for part in parts
                    for entry in tar.read(bench.made[part.key].path, part.what)
                ],
                parts=parts,
            )

    def _sizes(self) -> tuple[list[WheelPin], list[WheelPin], list[WheelPin]]:
        """Sort the wheels into big, medium and small ones."""
        sharing = set(self._paths[0]) if self._paths else set()
        candidates = [pin for pin in self.pins if pin.size >= _BIG and pin.file not in sharing]
        biggest = sorted(candidates, key=lambda pin: (-pin.size, pin.file))[:_MOST_BIG]
        # One order for everybody, whatever else a project uses, so that chains share a prefix.
        big = sorted(biggest, key=lambda pin: pin.file)
        small = [pin for pin in self.pins if pin.size < _MEDIUM and pin.file not in sharing]
        sorted_out = {pin.file for pin in (*big, *small)}
        return big, [pin for pin in self.pins if pin.file not in sorted_out], small

    def _key_of(self, pins: Sequence[WheelPin]) -> list[Any]:
        return [asdict(self.site), [[pin.file, pin.sha256] for pin in pins]]

    def _entries(self, pin: WheelPin, path: Path) -> list[Entry]:
        from packager.layers.wheel import wheel_entries

        if pin.file not in self._contents:
            self._contents[pin.file] = wheel_entries(path, pin.file, self.site)
        return self._contents[pin.file]

    def _wheel_layer(self, pins: Sequence[WheelPin], what: str) -> Recipe:
        return Recipe(
            "wheels",
            what,
            _key("wheels", *self._key_of(pins)),
            len(pins),
            lambda bench: [
                entry for pin in pins for entry in self._entries(pin, bench.path(pin.sha256))
            ],
            needs=tuple(pin.sha256 for pin in pins),
        )

    def _bytecode_of(self, pin: WheelPin, interpreter: Interpreter) -> Recipe:
        """Make one wheel's bytecode, which all projects that use the wheel share."""
        return Recipe(
            "bytecode",
            pin.file,
            _key("bytecode of a wheel", self.compiler, *self._key_of([pin])),
            1,
            lambda bench: compile_entries(
                self._entries(pin, bench.path(pin.sha256)),
                interpreter.tag,
                bench.python(interpreter),
            ),
            needs=(pin.sha256,),
            compiles=True,
        )

    @property
    def _tops(self) -> set[str]:
        return set(self._paths[1]) if self._paths else set()

    def _tops_of(self, entries: list[Entry]) -> set[str]:
        return {self._top(entry.path) for entry in entries if self.site.packages in entry.path}

    def _top(self, path: str) -> str:
        return path.removeprefix(f"{self.site.packages}/").partition("/")[0]

    def _runtime(self) -> Recipe:
        made = self._runtime_entries()
        return Recipe(
            "runtime",
            "packager_runtime",
            _key("runtime", self.compiler, runtime.digest(), asdict(self.site)),
            len(made),
            lambda bench: self._with_bytecode(made, bench),
            compiles=self.interpreter is not None,
        )

    def _runtime_entries(self) -> list[Entry]:
        folder = f"{self.site.packages}/packager_runtime"
        return [data_entry(f"{folder}/{name}", data) for name, data in runtime.files()]

    def _model(self, model: tree.Model) -> Recipe:
        key = _key("model", [model.digest, str(self.project.model)])
        return Recipe("model", str(self.project.model), key, 1, lambda _: list(model.entries))

    def _own(self, files: list[tuple[str, bytes]]) -> list[Entry]:
        return [] if self.project.is_built else tree.code_entries(self.project, files, self.site)

    def _code(self, files: list[tuple[str, bytes]], facts: Mapping[str, bytes]) -> Recipe:
        made = self._own(files)
        made += [data_entry(f"{tree.ROOT}/{name}", data) for name, data in sorted(facts.items())]
        listing = [[entry.path, entry.mode, _sha256_of(entry)] for entry in made]
        return Recipe(
            "code",
            ", ".join(str(path) for path in self.project.code) or "facts",
            _key("code", self.compiler, listing),
            len(files),
            lambda bench: self._with_bytecode(made, bench),
            compiles=self.interpreter is not None,
        )

    def _with_bytecode(self, entries: list[Entry], bench: Bench) -> list[Entry]:
        """Add the bytecode of a layer that changes with its sources anyway."""
        if self.interpreter is None:
            return entries
        run = bench.python(self.interpreter)
        return [*entries, *compile_entries(entries, self.interpreter.tag, run)]


def _key(kind: str, *values: Any) -> str:
    return hashlib.sha256(canonical_json([formats.LAYERS, kind, *values])).hexdigest()


def _base_key(base: Sequence[DebPin], python: str) -> list[Any]:
    return [python, [[pin.architecture, pin.sha256] for pin in base]]


def _compiles_on(lock: Lock, platform: str) -> str:
    """Name the platform whose Python compiles: this machine's own, if the lock has the same for it.

    Bytecode does not depend on the machine, and no other's programs run everywhere.
    """
    for own, machines in MACHINES.items():
        fits = own in lock.platforms and _python_of(lock, own) == _python_of(lock, platform)
        if host.machine() in machines and fits:
            return own
    return platform


def _python_of(lock: Lock, platform: str) -> object:
    if image := lock.images.get(platform):
        return image.target
    return [
        re.sub(r"\+b\d+$", "", pin.version)  # built again of the same source
        for pin in lock.debs_of(platform)
        if re.fullmatch(r"python3\.\d+-minimal", pin.name)
    ]


def _read(recipe: Recipe, bench: Bench) -> list[Entry]:
    return tar.read(bench.made[recipe.key].path, "the base")


def _base_entries(base: Sequence[DebPin], python: str, bench: Bench) -> list[Entry]:
    from packager.layers import deb

    return deb.base_entries(_placed(base, bench), python=python, scratch=bench.scratch)


def _extra_entries(base: Sequence[DebPin], extra: Sequence[DebPin], bench: Bench) -> list[Entry]:
    from packager.layers import deb

    return deb.extra_entries(_placed(base, bench), _placed(extra, bench), scratch=bench.scratch)


def _image_entries(
    root: Mapping[str, Entry], debs: Sequence[DebPin], architecture: str, bench: Bench
) -> list[Entry]:
    from packager.layers import deb

    return deb.image_entries(
        [*root.values()], _placed(debs, bench), architecture=architecture, scratch=bench.scratch
    )


def _placed(pins: Sequence[DebPin], bench: Bench) -> list[tuple[DebPin, Path]]:
    return [(pin, bench.path(pin.sha256)) for pin in pins]


def _library(entries: list[Entry], python: str) -> list[Entry]:
    folders = (f"usr/lib/python{python}/", "usr/lib/python3/")
    return [entry for entry in entries if entry.path.startswith(folders)]


def _sha256_of(entry: Entry) -> str:
    assert entry.open is not None
    return hashlib.sha256(entry.open().read()).hexdigest()
