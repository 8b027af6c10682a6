import math

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.contracts.evidence import Profile
from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec
from tidewheel.contracts.verdict import Phase
from tidewheel.quality.drift import NOISE_LEVEL, drift, noise, psi, unknown_features
from tidewheel.quality.profile import profile, profile_on

CONFIG = ValidateConfig(max_psi=0.25, max_label_psi=0.1)


def histogram(shares, rate=0.5, rows=100_000.0):
    return Profile(
        numeric_edges={},
        categorical_values={"tab": tuple("abcdefgh"[: len(shares) - 2])},
        shares={"tab": tuple(shares)},
        label_rates={"click": rate},
        rows=int(rows),
        effective_rows=rows,
    )


def by_check(reasons):
    return {reason.check: reason for reason in reasons}


def test_the_index_is_the_textbook_sum():
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert psi((0.6, 0.4), (0.5, 0.5), 1e9, 1e9) == pytest.approx(expected, rel=1e-6)


def test_a_bin_that_is_empty_on_one_side_is_far_and_finite():
    assert 0.5 < psi((0.9, 0.1), (1.0, 0.0), 1000, 1000) < 10


def test_the_same_shares_pass_and_say_their_number():
    reason = by_check(drift(histogram((0.5, 0.5, 0, 0)), histogram((0.5, 0.5, 0, 0)), CONFIG))["drift tab"]
    assert reason.phase is Phase.SUCCESSFUL
    assert reason.message == "drift tab: psi 0.0000 <= 0.25"


def test_a_moved_feature_fails_with_its_index_and_limit():
    reason = by_check(drift(histogram((0.9, 0.1, 0, 0)), histogram((0.5, 0.5, 0, 0)), CONFIG))["drift tab"]
    assert reason.phase is Phase.FAILED
    assert reason.value == pytest.approx(0.4 * math.log(1.8) - 0.4 * math.log(0.2), rel=1e-3)
    assert reason.limit == 0.25


def test_a_feature_whose_drift_is_expected_is_reported_and_never_fails():
    config = CONFIG.model_copy(update={"unchecked_drift": ("tab",)})
    reason = by_check(drift(histogram((0.9, 0.1, 0, 0)), histogram((0.5, 0.5, 0, 0)), config))["drift tab"]
    assert reason.phase is Phase.SUCCESSFUL
    assert "reported only" in reason.message
    assert reason.value > 0.25


def test_a_label_rate_that_halves_fails():
    old, new = histogram((1, 0, 0), rate=0.4), histogram((1, 0, 0), rate=0.1)
    reason = by_check(drift(new, old, CONFIG))["drift label click"]
    assert reason.phase is Phase.FAILED
    assert "(rate 0.1000, was 0.4000)" in reason.message


def test_a_feature_or_label_that_vanished_fails():
    gone = histogram((1, 0, 0)).model_copy(update={"shares": {}, "label_rates": {}})
    assert {reason.phase for reason in drift(gone, histogram((1, 0, 0)), CONFIG)} == {Phase.FAILED}


def test_a_feature_that_production_does_not_know_is_reported_not_failed():
    (reason,) = unknown_features(histogram((1, 0, 0)), ["tab", "hour"])
    assert (reason.check, reason.phase) == ("drift hour", Phase.SUCCESSFUL)


def test_too_few_rows_to_tell_drift_from_chance_is_inconclusive_not_a_pass():
    old, new = histogram((0.25,) * 4, rows=30.0), histogram((0.55, 0.2, 0.15, 0.1), rows=30.0)
    assert by_check(drift(new, old, CONFIG))["drift tab"].phase is Phase.INCONCLUSIVE


def test_chance_alone_stays_below_its_allowance_as_often_as_promised():
    """Without drift the index exceeds the allowance once in 1 / NOISE_LEVEL; the tolerance is four binomial deviations."""
    generator, rounds, rows = np.random.default_rng(3), 4000, 3000
    q = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.06, 0.04])
    first, second = (generator.multinomial(rows, q, rounds) / rows for _ in range(2))
    limit = noise(len(q), rows, rows)
    exceeded = sum(psi(a, b, rows, rows) > limit for a, b in zip(first, second, strict=True))
    assert exceeded <= rounds * NOISE_LEVEL + 4 * math.sqrt(rounds * NOISE_LEVEL)
    assert exceeded > 0 or rounds * NOISE_LEVEL < 5


def test_two_samples_of_one_log_do_not_drift_and_a_shifted_one_does():
    generator = np.random.default_rng(0)
    spec = FeatureSpec(id=1, name="x", kind=FeatureKind.NUMERIC, entity=Entity.ITEM)

    def sample(shift):
        return pa.table({"x": generator.normal(shift, 1, 5000), "weight": generator.uniform(0.5, 4, 5000)})

    baseline = profile(sample(0.0), [spec], [])
    same = drift(profile_on(sample(0.0), baseline, []), baseline, CONFIG)
    moved = drift(profile_on(sample(1.0), baseline, []), baseline, CONFIG)
    assert [reason.phase for reason in same + moved] == [Phase.SUCCESSFUL, Phase.FAILED]
