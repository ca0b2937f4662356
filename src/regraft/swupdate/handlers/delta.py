# SPDX-License-Identifier: Apache-2.0
"""SWUpdate's handler `delta`: a zchunk header in the bundle, its missing chunks by HTTP, the rest from `source`.

Properties as in SWUpdate's documentation, chapter "Delta Update with SWUpdate", and two of our own that swupdate
ignores: `image-sha256` and `image-size`, which let the whole image be compared with what was signed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace

from regraft.engine.apply import Outcome, apply
from regraft.engine.cost import forecast
from regraft.engine.files import open_source
from regraft.engine.match import match
from regraft.engine.ranges import RangeSource
from regraft.engine.seeds import Seed
from regraft.engine.stream import Streamer
from regraft.errors import (
    FormatError,
    LimitError,
    MissingError,
    PolicyError,
    SourceError,
    StateError,
    UnsupportedError,
    UsageError,
)
from regraft.formats import filesystem_size, zchunk
from regraft.limits import Limits
from regraft.model import Algorithm, Digest, Recipe
from regraft.swupdate.description import Entry
from regraft.swupdate.handlers.base import Context, Forecast, Handler, Report, Sink
from regraft.transports.policy import parse_url

_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LOG_LEVELS = ("debug", "info", "warn", "error", "none")


class Delta(Handler):
    """Rebuilds an image and passes it to the chained handler."""

    def __init__(self, entry: Entry, context: Context) -> None:
        super().__init__(entry, context)
        self._chained = self._chain()

    def _chain(self) -> Handler:
        from regraft.swupdate.handlers import handler_for

        name = self.entry.setting("chain")
        if not name or name == "delta":
            raise FormatError(
                f"{self.entry.where}: property chain is {name!r}; it names the handler that takes the image",
                cure='set it to "raw" or "rawfile"',
            )
        return handler_for(
            replace(self.entry, type=name, compressed=None, encrypted=False, sha256=None, size=None), self.context
        )

    def check(self) -> None:
        entry = self.entry
        if entry.installed_directly:
            raise FormatError(
                f"{entry.where}: installed-directly is not possible with handler delta", cure="remove the attribute"
            )
        if not entry.setting("source"):
            raise FormatError(f"{entry.where}: handler delta needs the property source", cure="add it to properties")
        if entry.setting("zckloglevel", "error") not in _LOG_LEVELS:
            raise FormatError(f"{entry.where}: zckloglevel is one of {', '.join(_LOG_LEVELS)}")
        try:
            parse_url(self._url())
        except UsageError as error:
            raise FormatError(f"{entry.where}: {error}", cure="mend the property url") from None
        self._limits()
        self._digest()
        self._source_size()
        self._chained.check()
        if os.path.realpath(self._target) == os.path.realpath(entry.setting("source")):
            raise PolicyError(
                f"{entry.where}: {self._target} is source and target at once",
                cure="install into the slot that is not running",
            )

    # -- properties ---------------------------------------------------------------------------------------------------

    def _url(self) -> str:
        url, name = self.entry.setting("url"), self.entry.setting("zckfile")
        if url and url != "dynamic":
            return url
        if name in self.context.urls:
            return self.context.urls[name]
        if name:
            raise FormatError(
                f"{self.entry.where}: no URL for {name!r}", cure=f"say where it is: --delta-url {name}=URL"
            )
        raise FormatError(f"{self.entry.where}: handler delta needs the property url", cure="add it to properties")

    def _limits(self) -> Limits:
        limits = self.context.limits
        text = self.entry.setting("max-ranges")
        if not text:
            return limits
        number = self._number("max-ranges", text)
        if number < 1:
            raise FormatError(f"{self.entry.where}: max-ranges is {number}, at least 1 is needed")
        return replace(limits, ranges_per_request=min(number, limits.ranges_per_request))

    def _number(self, name: str, text: str) -> int:
        factor = _SUFFIXES.get(text[-1:].upper(), 1)
        digits = text[:-1] if factor > 1 else text
        if not digits.isdecimal() or not digits.isascii() or len(digits) > 20:
            raise FormatError(f"{self.entry.where}: property {name} is {text!r}, a number is needed")
        return int(digits) * factor

    def _source_size(self) -> int | None:
        text = self.entry.setting("source-size")
        if text == "detect":
            head = bytearray(filesystem_size.HEAD)
            try:
                medium = open_source(self.entry.setting("source"))
                try:
                    medium.read_into(0, memoryview(head))
                finally:
                    medium.close()
            except SourceError:
                return None  # what follows finds that out again, and says so
            return filesystem_size.detect(head)
        return self._number("source-size", text) if text else None

    def _digest(self) -> Digest | None:
        text = self.entry.setting("image-sha256")
        if not text:
            return None
        try:
            return Digest(Algorithm.SHA256, bytes.fromhex(text))
        except ValueError:
            raise FormatError(f"{self.entry.where}: image-sha256 is {text!r}, not 64 hexadecimal digits") from None

    # -- the work -----------------------------------------------------------------------------------------------------

    def _recipe(self, content: Iterable[bytes]) -> Recipe:
        limits = self.context.limits
        data = bytearray()
        for piece in content:
            data += piece
            if len(data) > limits.header_size:
                raise LimitError(f"{self.entry.filename}: a header of more than {limits.header_size} bytes")
        header = zchunk.parse_header(data, limits=limits)
        if header.size != len(data):
            raise FormatError(
                f"{self.entry.filename}: {len(data) - header.size} bytes after the zchunk header",
                cure="put just the header into the bundle: `regraft header FILE.zck -o FILE.header`",
            )
        recipe = zchunk.recipe(header, self._url())
        expected = self.entry.setting("image-size")
        if expected and self._number("image-size", expected) != recipe.size:
            raise FormatError(f"{self.entry.filename}: an image of {recipe.size} bytes, image-size says {expected}")
        return recipe

    def _seeds(self, recipe: Recipe, held: ExitStack) -> tuple[list[Seed], list[str]]:
        """The source and further seeds, until `held` ends, and what could not be read: that costs a larger download."""
        from regraft.stores.places import open_seed

        algorithm = recipe.matchable
        source = self.entry.setting("source")
        seeds: list[Seed] = []
        warnings: list[str] = []
        if algorithm is None:
            return seeds, ["the artifact has no digests of uncompressed chunks: nothing can be reused (zck -u)"]
        for path in (source, *self.context.seeds):
            try:
                size, progress = self._source_size() if path == source else None, self.context.progress
                seeds.append(open_seed(path, algorithm, recipe.chunker, held, size=size, progress=progress))
            except (SourceError, StateError, MissingError) as error:
                warnings.append(f"{error}: what it holds is fetched instead")
        return seeds, warnings

    def forecast(self, content: Iterable[bytes]) -> Forecast:
        recipe = self._recipe(content)
        with ExitStack() as held:
            seeds, warnings = self._seeds(recipe, held)
            plan = match(recipe, [(seed.medium.name, seed.index) for seed in seeds])
        cost = forecast(plan, self.context.link, limits=self._limits())
        return Forecast(self.entry, self._target, recipe.size, cost, tuple(warnings))

    @property
    def _target(self) -> str:
        return self._chained.target if isinstance(self._chained, Sink) else self._chained.entry.filename

    def install(self, content: Iterable[bytes]) -> Report:
        recipe = self._recipe(content)
        if recipe.blobs[0].size is None:
            raise UnsupportedError("a zchunk file of unknown size")
        limits = self._limits()
        with ExitStack() as held, self.context.connect(limits) as fetcher:
            seeds, warnings = self._seeds(recipe, held)
            source = fetcher.open(self._url(), size=recipe.blobs[0].size)
            if isinstance(self._chained, Sink):
                with self._chained.slot() as slot:
                    outcome = apply(
                        recipe,
                        seeds,
                        [source],
                        slot.medium,
                        state=slot.state,
                        digest=self._digest(),
                        workers=self.context.workers,
                        limits=limits,
                        progress=self.context.progress,
                    )
            else:
                outcome = self._stream(recipe, seeds, source, limits)
            stats = source.stats
        return Report(
            self.entry,
            self._target,
            recipe.size,
            outcome,
            wire=stats.bytes,
            requests=stats.requests,
            full=sum(recipe.units.stored),
            warnings=tuple(warnings),
        )

    def _stream(self, recipe: Recipe, seeds: list[Seed], source: RangeSource, limits: Limits) -> Outcome:
        """Pass the image to a chained handler that takes it only in order."""
        plan = match(recipe, [(seed.medium.name, seed.index) for seed in seeds])
        streamer = Streamer(
            plan,
            [seed.medium for seed in seeds],
            [source],
            digest=self._digest(),
            workers=self.context.workers,
            limits=limits,
            progress=self.context.progress,
        )
        self._chained.install(bytes(piece) for piece in streamer.pieces())
        return Outcome(plan, streamer.origins, streamer.fetched, streamer.replaced, resumed=False)
