"""Layers to an engine while the ones above them are still being made.

Taking layers in is the engine's slowest work, and it begins only when an archive is complete.
So the lower part of an image is sent as an image of its own, once it is worth it, and again as
it grows; while the engine takes one in, the next is on its way.  The last archive then holds
only what is left.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from packager import aside
from packager.errors import HostError, PackagerError
from packager.image import Image, bare
from packager.layers.making import Layer
from packager.outputs.engine import Engine
from packager.outputs.images import Loaded

__all__ = ["Ahead"]

_AT_ONCE = 2  # one that is taken in, and one on its way
_WORTH = 8_000_000  # bytes: an archive of its own costs the engine a tenth of a second


class Ahead:
    """Sends what is ready, in a thread of its own; its images are gone at the end.

    Parameters
    ----------
    connect : callable
        Gives the engine where layers go; asked once and at once, in a thread of its own.
    platform : str
        The image's.
    """

    def __init__(self, connect: Callable[[], Engine], platform: str) -> None:
        self._connected, self._platform = aside.begin(lambda: _ready(connect())), platform
        self._ready: queue.SimpleQueue[Layer | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._images: list[str] = []
        self._sent = self._covered = 0  # layers; the latter with those that the engine had
        self._slots = threading.Semaphore(_AT_ONCE)
        self._turn = threading.Event()  # of the one after the last that was sent
        self._turn.set()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._connected.done() and not self._connected.exception():
            self.engine.give_up_load()
        if isinstance(error, HostError | KeyboardInterrupt):
            return  # nobody waits for an engine in trouble: a later run finds what stays
        self._finish()
        for image in self._images:
            self.engine.remove(image)

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises
        ------
        HostError
            When none answers that takes images.
        """
        return self._connected.result()

    def add(self, layer: Layer) -> None:
        """Take the next layer, from the bottom up."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._ready.put(layer)

    def load(self, image: Image) -> Loaded:
        """Bring in the whole image, as `Engine.load` does, with what is left to be sent."""
        self._end()
        loaded = self.engine.load(image, skip=self._covered, turn=self._turn)
        sent = min(loaded.sent + self._sent, len(image.layers))
        return Loaded(sent, existed=loaded.existed)

    def _finish(self) -> None:
        self._end()
        self._turn.wait()

    def _end(self) -> None:
        if self._thread is not None:
            self._ready.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        # It was worth a try: whoever loads the image is told what is wrong.
        with contextlib.suppress(PackagerError):
            self._send_what_is_ready()

    def _send_what_is_ready(self) -> None:
        layers: list[Layer] = []
        sent = 0
        while (more := self._next()) is not None:
            layers += more
            image = bare(layers, self._platform)
            sent = max(sent, self.engine.known(image))
            if sum(layer.blob.size for layer in layers[sent:]) >= _WORTH:
                self._images.append(self.engine.id_of(image))
                self._slots.acquire()
                mine, self._turn = self._turn, threading.Event()
                words = (image, sent, mine, self._turn)
                threading.Thread(target=self._send, args=words, daemon=True).start()
                self._sent += len(layers) - sent
                self._covered = sent = len(layers)

    def _send(
        self, image: Image, skip: int, mine: threading.Event, next_one: threading.Event
    ) -> None:
        try:
            with contextlib.suppress(PackagerError):
                self.engine.load_part(image, skip, mine)
        finally:
            next_one.set()
            self._slots.release()

    def _next(self) -> list[Layer] | None:
        """Wait for a layer, and take all that are ready; None when nobody needs them any more."""
        layers: list[Layer] = []
        while not layers or not self._ready.empty():
            layer = self._ready.get()
            if layer is None:
                return None
            layers.append(layer)
        return layers


def _ready(engine: Engine) -> Engine:
    engine.begin_load()
    return engine
