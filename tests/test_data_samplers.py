"""Who is in a batch: balance, no repetition before its time, purity, and the same batch over many processes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinogrl.data.samplers import AlignedPairs, IdentityBalanced, rows_of_rank
from dinogrl.errors import DataError
from dinogrl.records import Modality, Tracklet


def make(identity: int, modality: Modality, number: int, camera: int = 0) -> Tracklet:
    return Tracklet(f"{identity}-{modality.name}-{number}", identity, camera, modality, "", ("1.jpg",))


def crowd(counts: list[tuple[int, int]]) -> list[Tracklet]:
    """Identity i has counts[i] = (visible, infrared) tracklets."""
    return [
        make(identity, modality, number)
        for identity, pair in enumerate(counts)
        for modality, count in zip(Modality, pair)
        for number in range(count)
    ]


def pairs_of(counts: list[int], cameras: int = 3) -> tuple[list[Tracklet], list[tuple[int, int]]]:
    tracklets: list[Tracklet] = []
    pairs = []
    for identity, count in enumerate(counts):
        for number in range(count):
            tracklets += [make(identity, modality, number, number % cameras) for modality in Modality]
            pairs.append((len(tracklets) - 2, len(tracklets) - 1))
    return tracklets, pairs


COUNTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


@settings(max_examples=80)
@given(COUNTS, st.integers(2, 4), st.integers(1, 5), st.integers(0, 99), st.integers(0, 50), st.integers(0, 50))
def test_every_batch_is_balanced(
    counts: list[tuple[int, int]], identities: int, clips: int, seed: int, epoch: int, step: int
) -> None:
    tracklets = crowd(counts)
    usable = {identity for identity, (visible, infrared) in enumerate(counts) if visible and infrared}
    if len(usable) < identities:
        with pytest.raises(DataError, match="identities with visible and infrared"):
            IdentityBalanced(tracklets, identities, clips, seed)
        return
    sampler = IdentityBalanced(tracklets, identities, clips, seed)
    assert set(sampler.skipped) == {i for i, (visible, infrared) in enumerate(counts) if bool(visible) != bool(infrared)}
    picks = sampler.batch(epoch, step)
    rows = [tracklets[pick.tracklet] for pick in picks]
    half = identities * clips
    assert [pick.row for pick in picks] == [pick.shared for pick in picks] == list(range(2 * half))
    assert [row.modality for row in rows] == [Modality.VISIBLE] * half + [Modality.INFRARED] * half
    assert [row.identity for row in rows[:half]] == [row.identity for row in rows[half:]], "grouped by identity, in the same order"
    assert Counter(row.identity for row in rows[:half]) == dict.fromkeys({row.identity for row in rows}, clips)
    assert len({row.identity for row in rows}) == identities and {row.identity for row in rows} <= usable
    for start in range(0, 2 * half, clips):  # a tracklet repeats only when the identity has too few, and then as evenly as can be
        times = Counter(pick.tracklet for pick in picks[start : start + clips])
        owned = counts[rows[start].identity][rows[start].modality]
        assert len(times) == min(owned, clips) and max(times.values()) == -(-clips // owned)
    assert picks == IdentityBalanced(tracklets, identities, clips, seed).batch(epoch, step)


def test_every_round_and_every_epoch_is_shuffled_anew() -> None:
    """Both who meets whom in a batch, and which of a person's tracklets stand for him."""
    tracklets = crowd([(9, 9)] * 12)
    sampler = IdentityBalanced(tracklets, 4, 1, seed=3)
    rounds = [(0, 0), (0, 3), (0, 6), (1, 0), (2, 0)]  # epoch, and the step with which a round begins
    chosen = [[pick.tracklet for pick in sampler.batch(epoch, step)] for epoch, step in rounds]
    assert len({tuple(tracklets[position].identity for position in picks) for picks in chosen}) == len(rounds)
    alone = IdentityBalanced(crowd([(9, 9)] * 2), 2, 3, seed=3)
    drawn = [frozenset(pick.tracklet for pick in alone.batch(epoch, step)) for epoch in range(3) for step in range(3)]
    assert len(set(drawn)) == len(drawn)


def test_an_epoch_of_pairs_goes_once_through_them_and_names_who_has_none() -> None:
    tracklets, pairs = pairs_of([5, 5, 5])
    sampler = AlignedPairs([*tracklets, make(7, Modality.VISIBLE, 0)], pairs, 2, 2, seed=0)
    assert sampler.natural_steps == 4 and sampler.skipped == [7], "15 pairs, four a batch: the last batch is not dropped"


def test_identities_do_not_repeat_before_all_whole_batches_are_dealt() -> None:
    sampler = IdentityBalanced(crowd([(2, 2)] * 12), 4, 2, seed=3)
    for epoch in range(3):
        for dealing in range(4):
            batches = [sampler.batch(epoch, 3 * dealing + step) for step in range(3)]
            assert len({pick.tracklet // 4 for batch in batches for pick in batch}) == 12


def test_seed_epoch_and_step_all_matter() -> None:
    tracklets = crowd([(5, 5)] * 20)
    batches = {
        tuple(pick.tracklet for pick in IdentityBalanced(tracklets, 4, 2, seed).batch(epoch, step))
        for seed in range(3)
        for epoch in range(3)
        for step in range(3)
    }
    assert len(batches) == 27


def test_every_tracklet_is_drawn_in_the_long_run() -> None:
    tracklets = crowd([(3, 7), (1, 2), (9, 1), (4, 4)])
    sampler = IdentityBalanced(tracklets, 2, 2, seed=0)
    drawn = {pick.tracklet for step in range(300) for pick in sampler.batch(0, step)}
    assert drawn == set(range(len(tracklets)))


def test_natural_steps_go_once_through_the_larger_modality() -> None:
    assert IdentityBalanced(crowd([(10, 4)] * 8), 4, 2, seed=0).natural_steps == 10
    assert IdentityBalanced(crowd([(10, 4)] * 8 + [(99, 0)]), 4, 2, seed=0).natural_steps == 10
    assert AlignedPairs(*pairs_of([5] * 8), 4, 2, seed=0).natural_steps == 5


@settings(max_examples=60)
@given(st.lists(st.integers(1, 6), min_size=4, max_size=9), st.integers(1, 4), st.integers(0, 20), st.integers(0, 20))
def test_pairs_stay_together(counts: list[int], clips: int, epoch: int, step: int) -> None:
    tracklets, pairs = pairs_of(counts)
    picks = AlignedPairs(tracklets, pairs, 4, clips, seed=1).batch(epoch, step)
    half = 4 * clips
    for visible, infrared in zip(picks[:half], picks[half:], strict=True):
        assert (visible.tracklet, infrared.tracklet) in pairs
        assert visible.shared == infrared.shared == visible.row and infrared.row == visible.row + half
    for start in range(0, half, clips):
        group = [tracklets[pick.tracklet] for pick in picks[start : start + clips]]
        owned = [tracklets[first].camera for first, _ in pairs if tracklets[first].identity == group[0].identity]
        assert len({row.identity for row in group}) == 1
        assert len({row.camera for row in group}) == min(clips, len(set(owned)))


@settings(max_examples=40)
@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.booleans(), st.integers(1, 3), st.integers(0, 9))
def test_ranks_together_are_the_whole_batch(world: int, paired: bool, clips: int, step: int) -> None:
    if paired:
        tracklets, pairs = pairs_of([4] * 15)
        whole = AlignedPairs(tracklets, pairs, 12, clips, seed=5).batch(2, step)
    else:
        tracklets = crowd([(4, 3)] * 15)
        whole = IdentityBalanced(tracklets, 12, clips, seed=5).batch(2, step)
    parts = [rows_of_rank(whole, 12, rank, world) for rank in range(world)]
    assert sorted((pick for part in parts for pick in part), key=lambda pick: pick.row) == whole
    people = [{tracklets[pick.tracklet].identity for pick in part} for part in parts]
    assert sum(len(group) for group in people) == 12, "an identity is on one rank only"
    for part in parts:
        modalities = [tracklets[pick.tracklet].modality for pick in part]
        assert modalities == sorted(modalities) and modalities.count(Modality.VISIBLE) == len(part) // 2


def test_identities_that_do_not_divide_are_an_error() -> None:
    with pytest.raises(DataError, match="multiple of 3"):
        rows_of_rank(IdentityBalanced(crowd([(2, 2)] * 9), 8, 1, seed=0).batch(0, 0), 8, 0, 3)


def test_too_few_identities_say_what_to_do() -> None:
    with pytest.raises(DataError, match=r"there are 3 \(1 were seen by one modality only\); set training.batch.identities to 3"):
        IdentityBalanced(crowd([(2, 2)] * 3 + [(4, 0)]), 8, 1, seed=0)
    with pytest.raises(DataError, match="add tracklets of the other modality"):
        IdentityBalanced(crowd([(2, 0)] * 9), 8, 1, seed=0)
