"""Many workers share the shards of a set: none is made twice at once, and the dead hold nothing up."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from featurestore import process
from featurestore.claims import Claims, list_claims, share
from featurestore.featureset import create_feature_set
from featurestore.items import list_items
from featurestore.process import identity, is_alive
from featurestore.reader import open_features

from .sets import add_images, fill, image_layout, tokens_of

KEYS = [str(i) for i in range(23)]
ELSEWHERE = "other-host_0123456789ab_4026531836_77_1234"


@pytest.fixture
def planned(store, tmp_path):
    """A set of six shards, none of them made."""
    add_images(store, tmp_path, KEYS)
    feature_set = create_feature_set(store, image_layout())
    return feature_set, feature_set.plan(list_items(store, modality="image"))


def held_by(feature_set, shard, who, generation=1):
    folder = feature_set.path / "claims"
    folder.mkdir(exist_ok=True)
    path = folder / f"v0-{shard:08d}.g{generation:04d}"
    path.write_text(f"{who}/00000000")
    return path


def test_this_process_lives_and_another_of_its_pid_does_not():
    assert is_alive(identity()) is True
    assert is_alive(identity().rpartition("_")[0] + "_1") is False
    assert is_alive(ELSEWHERE) is None
    assert is_alive("") is None


def test_a_process_that_was_killed_is_known_to_be_dead():
    code = "from featurestore.process import identity; print(identity(), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, text=True) as child:
        who = child.stdout.readline().strip()
        assert is_alive(who) is True
        child.kill()
        deadline = time.monotonic() + 10
        while is_alive(who) and time.monotonic() < deadline:  # a zombie is dead too
            time.sleep(0.01)
        assert is_alive(who) is False


def test_a_machine_that_was_started_again_has_ended_its_processes(monkeypatch):
    who = identity()
    place = process._place().split("_")
    monkeypatch.setattr(process, "_place", lambda: f"{place[0]}_ffffffffffff_{place[2]}")
    assert is_alive(who) is (False if place[1] != "0" else None)


def test_a_claim_is_exclusive_and_can_be_given_back(planned):
    feature_set, _ = planned
    with Claims(feature_set) as one, Claims(feature_set) as two:
        assert one.take(0, 0)
        assert not two.take(0, 0)
        assert two.take(0, 1)
        one.release(0, 0)
        assert two.take(0, 0)
    assert not list_claims(feature_set)


def test_a_dead_process_holds_nothing_up(planned):
    feature_set, _ = planned
    held_by(feature_set, 0, identity().rpartition("_")[0] + "_1")
    with Claims(feature_set) as claims:
        assert claims.take(0, 0)
        assert [c.generation for c in list_claims(feature_set)] == [1, 2]
    assert not list_claims(feature_set)


@pytest.mark.parametrize("clock", [0, 10**10])  # of the other machine: 1970, 2286
def test_a_silent_claim_of_another_machine_is_taken_over_after_its_lease_on_ones_own_clock(planned, clock):
    feature_set, _ = planned
    path = held_by(feature_set, 0, ELSEWHERE)
    os.utime(path, (clock, clock))
    now = [0.0]
    with Claims(feature_set, lease_s=60, clock=lambda: now[0]) as claims:
        assert not claims.take(0, 0)
        now[0] = 50
        os.utime(path, (clock + 1, clock + 1))  # it beats
        assert not claims.take(0, 0)
        now[0] = 110
        assert not claims.take(0, 0)
        now[0] = 111
        assert claims.take(0, 0)


def test_a_claim_beats_while_it_is_held(planned):
    feature_set, _ = planned
    with Claims(feature_set, lease_s=0.3) as claims:
        assert claims.take(0, 0)
        first = list_claims(feature_set)[0].beat
        deadline = time.monotonic() + 10
        while list_claims(feature_set)[0].beat == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_workers_share_the_shards_and_each_is_made_once(store, planned):
    feature_set, plans = planned
    made = []

    def work():
        with Claims(feature_set) as claims:
            for plan in claims.share(plans):
                time.sleep(0.01)
                made.append((plan.shard, fill(store, feature_set, plan).commit()))
                claims.release(plan.view, plan.shard)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(made) == [(shard, True) for shard in range(6)]
    features = open_features(store, feature_set.name)
    assert all((features.image_tokens([f"d/{k}"])[0] == tokens_of(f"d/{k}", "image")).all() for k in KEYS)
    assert not list_claims(feature_set)


def test_shards_of_other_sets_that_hold_the_same_items_are_claimed_together(store, planned):
    large, _ = planned
    small = create_feature_set(store, replace(large.layout, encoder="small", shard_rows=2))
    plans = [(one, plan) for one in (small, large) for plan in one.plan(list_items(store, modality="image"))]
    held_by(small, 1, ELSEWHERE)
    with Claims(large) as of_large, Claims(small) as of_small:
        work = [(of_large if one is large else of_small, plan) for one, plan in plans]
        groups = share(work)
        first = next(groups)
        # The largest of those that begin with the first item leads; what another process makes is left out.
        inside = range(-(-large.layout.shard_rows // 2))
        assert [(c.feature_set.encoder, plan.shard) for c, plan in first] == [
            (large.encoder, 0),
            *(("small", shard) for shard in inside if shard != 1),
        ]


def test_while_others_hold_what_is_left_an_empty_group_comes_first(store, planned):
    feature_set, plans = planned
    path = held_by(feature_set, 0, ELSEWHERE)
    with Claims(feature_set, lease_s=60) as claims:
        groups = share([(claims, plans[0])])
        assert next(groups) == []
        path.unlink()
        assert next(groups) == [(claims, plans[0])]


def test_a_worker_waits_for_what_another_makes_and_takes_it_over_when_it_dies(store, planned):
    feature_set, plans = planned
    path = held_by(feature_set, 3, ELSEWHERE)
    with Claims(feature_set, lease_s=0.5) as claims:
        shards = []
        for plan in claims.share(plans):
            shards.append(plan.shard)
            fill(store, feature_set, plan).commit()
            claims.release(plan.view, plan.shard)
    assert shards == [0, 1, 2, 4, 5, 3]
    assert not path.exists()
