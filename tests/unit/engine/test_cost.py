# SPDX-License-Identifier: Apache-2.0
"""Forecasts are what then happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import casync_stores
import pytest
from images import CountingSource, Pair, pack, seed_of, small_recipe

from regraft.build.zchunk import Options
from regraft.engine.apply import apply
from regraft.engine.cost import forecast
from regraft.engine.match import match
from regraft.engine.progress import Origin
from regraft.engine.ranges import Link
from regraft.limits import DEFAULT
from regraft.model import Algorithm
from regraft.testing.memory import MemoryMedium

LINK = Link(bandwidth=1e6, round_trip=0.1)


@pytest.mark.parametrize("options", [Options(), Options(dictionary=bytes(range(256)) * 8), Options(compression="none")])
def test_a_forecast_is_what_then_happens(options: Options, pair: Pair) -> None:
    artifact, seed = pack(pair.new, options), seed_of(pair.old)
    cost = forecast(match(artifact.recipe, [("old", seed.index)]), LINK)
    source = CountingSource(artifact.content)
    outcome = apply(artifact.recipe, [seed], [source], MemoryMedium())
    assert cost.fetch == source.total == outcome.fetched
    assert cost.reused == outcome.bytes_from(Origin.SEED)
    assert cost.zeros == outcome.bytes_from(Origin.ZERO)
    assert cost.fetched_image == outcome.bytes_from(Origin.FETCHED)
    assert cost.image == cost.reused + cost.zeros + cost.fetched_image == len(pair.new)
    assert cost.full == artifact.header.body_size
    assert cost.saved == cost.full - cost.transfer > 0


def test_what_is_in_place_costs_nothing(pair: Pair) -> None:
    recipe = pack(pair.new).recipe
    plan = match(recipe, [])
    everything = forecast(plan, LINK, finished=b"\1" * len(recipe.table))
    assert (everything.fetch, everything.requests, everything.seconds) == (0, 0, 0.0)
    assert everything.in_place == everything.image == len(pair.new)
    part = forecast(plan, LINK, finished=b"\1" * 10)
    assert part.in_place == recipe.table.bounds[10]
    assert 0 < part.fetch < forecast(plan, LINK).fetch


def test_time_is_that_of_the_bytes_and_a_round_trip() -> None:
    recipe = small_recipe(bytes(range(256)) * 1000)
    cost = forecast(match(recipe, []), LINK)
    assert cost.fetch == cost.transfer <= 256_000
    assert cost.seconds == pytest.approx(cost.transfer / 1e6 + 0.1)


def test_requests_grow_as_their_ranges_shrink(pair: Pair) -> None:
    artifact = pack(pair.new, Options(compression="none"))
    plan = match(artifact.recipe, [("old", seed_of(pair.old).index)])
    near = Link(bandwidth=1e6, round_trip=1e-9)
    single = forecast(plan, near, ranges_per_request=1)
    many = forecast(plan, near, limits=replace(DEFAULT, ranges_per_request=100))
    assert single.requests > many.requests >= 1
    assert single.fetch == many.fetch
    assert many.transfer >= many.fetch


def test_chunk_files_of_unknown_size_cost_at_most_so_much(pair: Pair, tmp_path: Path) -> None:
    made = casync_stores.pack(pair.new, tmp_path / "store", casync_stores.Options(compression="none"))
    seed = seed_of(pair.old, Algorithm.SHA512_256, made.recipe.chunker)
    cost = forecast(match(made.recipe, [("old", seed.index)]), LINK)
    source = casync_stores.source(made.header, tmp_path / "store")
    outcome = apply(made.recipe, [seed], [source], MemoryMedium())
    files = [file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert cost.at_most
    assert outcome.fetched <= cost.fetch == cost.transfer <= 1.02 * outcome.fetched
    assert sum(files) <= cost.full <= 1.02 * sum(files)
    assert 0 < cost.requests < len(files)
    trips = -(-cost.requests // DEFAULT.chunk_connections)
    assert cost.seconds == pytest.approx(cost.transfer / LINK.bandwidth + trips * LINK.round_trip)
    assert cost.fetched_image == outcome.bytes_from(Origin.FETCHED)
    nothing = forecast(match(made.recipe, []), LINK, finished=b"\1" * len(made.recipe.table))
    assert (nothing.fetch, nothing.requests, nothing.seconds) == (0, 0, 0.0)


def test_an_empty_image_costs_nothing() -> None:
    cost = forecast(match(pack(b"").recipe, []), LINK)
    assert (cost.image, cost.fetch, cost.requests, cost.seconds, cost.saved) == (0, 0, 0, 0.0, 0)
