"What the chapter on augmentation cannot show on examples: any picture, any clip, any seed, and every way to mistype a recipe."
import random

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from whisper_tutorial.core import UserError
from whisper_tutorial.data.augment import EFFECTS, POLICIES, augment_wav, draw_speeds, read_effects, spec_augment
from whisper_tutorial.speech.audio import SR

EVERY = [{name: {"p": 1}} for name in EFFECTS]


@given(policy=st.sampled_from(list(POLICIES)), n_mels=st.sampled_from([80, 128]), n_frames=st.integers(0, 3000),
       share=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_holes_are_within_the_policy_and_the_sound(policy, n_mels, n_frames, share, seed):
    mel = np.random.default_rng(0).normal(size=(n_mels, n_frames)).astype(np.float32)
    sound, before = round(share*n_frames), mel.copy()
    out = spec_augment(mel, policy, seed, sound_frames=sound)
    hole, masks = out != mel, POLICIES[policy].n_masks
    assert out.dtype == np.float32 and out.shape == mel.shape and np.array_equal(mel, before)
    assert not hole[:, sound:].any()
    if not sound: return
    rows, columns = hole[:, :sound].all(axis=1).sum(), hole[:, :sound].all(axis=0).sum()
    assert rows <= masks*round(27*n_mels/80)
    assert columns <= masks*min(100, .2*sound) or rows == n_mels
    assert np.array_equal(out, spec_augment(mel, policy, seed, sound_frames=sound))


def test_widths_are_drawn_evenly():
    "LibriSpeech Basic: heights from 0 to 27, widths from 0 to 100, each as often; no place is spared."
    mel = np.random.default_rng(0).normal(size=(80, 3000)).astype(np.float32)
    holes = [spec_augment(mel, seed=s) != mel for s in range(1500)]
    heights, widths = [h.all(axis=1).sum() for h in holes], [h.all(axis=0).sum() for h in holes]
    assert (min(heights), max(heights), min(widths), max(widths)) == (0, 27, 0, 100)
    assert abs(np.mean(heights) - 13.5) < 1 and abs(np.mean(widths) - 50) < 3
    assert np.any(holes, axis=0).all()


def test_a_window_of_a_batch_has_its_own_holes():
    mel = np.random.default_rng(0).normal(size=(3, 80, 500)).astype(np.float32)
    out = spec_augment(mel, "double", seed=[1, 2], sound_frames=[500, 200, 0])
    assert np.array_equal(out[1, :, 200:], mel[1, :, 200:]) and np.array_equal(out[2], mel[2])
    assert np.array_equal(out[1], spec_augment(mel[1], "double", seed=[1, 2, 1], sound_frames=200))


@given(n_samples=st.sampled_from([1, 2, 100, 399, 5000, 20_000]), names=st.sets(st.sampled_from(list(EFFECTS))),
       seed=st.lists(st.integers(0, 2**40), min_size=1, max_size=3), silent=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_clip_comes_back_as_sound(n_samples, names, seed, silent):
    wav = np.zeros(n_samples, np.float32) if silent else np.random.default_rng(0).normal(0, .3, n_samples).astype(np.float32)
    before, effects = wav.copy(), [{name: {"p": 1}} for name in EFFECTS if name in names]
    random.seed(1); np.random.seed(1)
    state = random.getstate(), np.random.get_state()[1].copy()
    out = augment_wav(wav, effects, seed, speed=1)
    assert random.getstate() == state[0] and np.array_equal(np.random.get_state()[1], state[1])
    assert out.dtype == np.float32 and out.shape == wav.shape and np.array_equal(wav, before)
    assert np.isfinite(out).all() and np.abs(out).max() <= 1
    random.seed(2)  # whatever happened before
    assert np.array_equal(out, augment_wav(wav, effects, seed, speed=1))


def test_an_effect_does_not_change_another():
    wav = np.random.default_rng(0).normal(0, .1, SR).astype(np.float32)
    alone = augment_wav(wav, [{"gain": {"p": 1}}], 5)
    with_speed_off = augment_wav(wav, [{"speed": {"p": 0}}, {"gain": {"p": 1}}, {"room": {"p": 0}}], 5)
    assert np.array_equal(alone, with_speed_off)


@given(n_samples=st.integers(1, 50_000), factor=st.floats(.5, 2))
@settings(max_examples=100, deadline=None)
def test_the_plan_has_room_for_every_speed(n_samples, factor):
    out = augment_wav(np.zeros(n_samples, np.float32), ["speed"], 0, speed=factor)
    assert n_samples/factor - 2 <= len(out) <= n_samples/factor


def test_speeds_come_with_their_probability():
    speeds = draw_speeds([{"speed": {"p": .25, "factor": [.8, 1.2]}}], 20_000, [0, 1])
    assert abs((speeds != 1).mean() - .25) < .02 and speeds.min() >= .8 and speeds.max() <= 1.2
    assert np.array_equal(draw_speeds(["noise"], 3, 0), np.ones(3))


@pytest.mark.parametrize("augment, message", [
    ("noise", "a list such as"), ({"noise": {}}, "a list such as"), (["nosie"], "Did you mean `noise`?"), ([None], "There are: "),
    ([{"noise": {"snr": 3}}], "Did you mean `snr_db`?"), ([{"noise": {"snr_db": [9, 5]}}], "the lower first"),
    ([{"noise": {"snr_db": [1, 2, 3]}}], "the lower first"), ([{"noise": {"snr_db": "5"}}], "'5'"),
    ([{"noise": {"snr_db": True}}], "True"), ([{"mp3": {"kbps": 8}}], "from 16 to 160"), ([{"phone": {"kbps": 8}}], "no option `kbps`"),
    ([{"room": {"rt60_s": float("nan")}}], "nan"), ([{"gain": {"p": 1.5}}], "from 0 to 1"), ([{"gain": {"p": [0, 1]}}], "from 0 to 1"),
    ([{"gain": 3}], "options by name"), ([{"gain": {}, "room": {}}], "There are: "), (["mp3", {"mp3": {}}], "give it once")])
def test_a_mistyped_recipe_is_refused(augment, message):
    with pytest.raises(UserError) as e: read_effects(augment)
    assert message in str(e.value)


def test_workers_hear_the_same():
    from torch.utils.data import DataLoader
    clips = Clips()
    loaded = DataLoader(clips, batch_size=None, num_workers=2)
    for i, wav in enumerate(loaded): assert np.array_equal(wav, clips[i])


class Clips:
    wav = np.random.default_rng(0).normal(0, .1, SR//2).astype(np.float32)
    def __len__(self): return 4
    def __getitem__(self, i): return augment_wav(self.wav, EVERY, [0, 0, i])
