"""Off-policy estimates: the published numbers of a real log, and policies whose value is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tidewheel.evaluation.intervals import Users, interval
from tidewheel.evaluation.replay import Logged, clipped_ips, doubly_robust, ips, snips, support, switch_doubly_robust

DATA = Path(__file__).parents[3].parent / "shared" / "data"
OBD, SLATES = DATA / "obd_small", DATA / "ebnerd_sample"


@pytest.mark.skipif(not OBD.is_dir(), reason="needs shared/data/obd_small")
@pytest.mark.parametrize(
    ("campaign", "items", "want", "bounds", "effective"),
    [("men", 34, 0.0032, (0.0018, 0.0050), 656), ("all", 80, 0.0023, (0.0010, 0.0044), 340)],
)
def test_the_uniform_policy_from_thompson_samplings_log_has_the_reference_value(campaign, items, want, bounds, effective):
    """Reference: the README of the data, 95% by bootstrap over rows. A few clicks with large rho carry the variance of `all`: a
    bootstrap does not know those that it did not draw, Student's t of few degrees of freedom allows for them.
    """
    rows = pq.read_table(OBD / campaign / "bts.parquet")
    propensity, clicks = rows["propensity_score"].to_numpy(), rows["click"].to_numpy().astype(float)
    log = Logged(clicks, propensity, np.full(len(clicks), 1 / items), np.ones(len(clicks)))
    found = snips(log)
    lower, upper = interval(found, Users.of(np.arange(len(clicks))))
    assert found.value == pytest.approx(want, abs=5e-5)
    assert support(log).effective_rows == pytest.approx(effective, abs=1)
    assert 0.9 < (upper - lower) / (bounds[1] - bounds[0]) < 1.7
    on_policy = pq.read_table(OBD / campaign / "random.parquet")["click"].to_numpy().mean()
    assert lower < on_policy < upper


class World:
    """Contexts with five actions of known worth; the log chooses by a softmax, the new policy by another one."""

    def __init__(self, seed: int, rows: int) -> None:
        self.random = np.random.default_rng(seed)
        self.worth = 0.05 + 0.4 * self.random.random((rows, 5)) ** 2
        self.logging, self.target = (self._policy(rows) for _ in range(2))
        self.chosen = (self.random.random((rows, 1)) > np.cumsum(self.logging, axis=1)).sum(axis=1)
        self.reward = (self.random.random(rows) < self._of(self.worth)).astype(float)
        self.value = float((self.worth * self.target).sum(axis=1).mean())
        self.weight = np.ones(rows)
        self.kept = np.arange(rows)

    def sampled(self, rate: float) -> World:
        """The log as a hybrid one keeps it: every reward, and of the rows without one a share `rate`, weighted by 1 / rate."""
        is_kept = (self.reward == 1) | (self.random.random(len(self.reward)) < rate)
        self.weight = np.where(self.reward == 1, 1.0, 1 / rate)
        self.kept = np.flatnonzero(is_kept)
        return self

    def _policy(self, rows: int) -> np.ndarray:
        found = np.exp(self.random.normal(0, 0.7, (rows, 5)) + 2 * self.worth)
        return found / found.sum(axis=1, keepdims=True)

    def _of(self, values: np.ndarray) -> np.ndarray:
        return values[np.arange(len(values)), self.chosen]

    def log(self) -> Logged:
        columns = (self.reward, self._of(self.logging), self._of(self.target), self.weight)
        return Logged(*(column[self.kept] for column in columns))

    def model(self, error: float) -> tuple[np.ndarray, np.ndarray]:
        """Expected rewards of what was chosen and of the new policy, by a model that is off by so much."""
        believed = self.worth + error
        return self._of(believed)[self.kept], (believed * self.target).sum(axis=1)[self.kept]


def estimates(world: World):
    log = world.log()
    return {
        "ips": ips(log),
        "snips": snips(log),
        "dr": doubly_robust(log, *world.model(0.1)),
        "switch": switch_doubly_robust(log, *world.model(0.0), limit=2.0),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "rows"), [(1.0, 1500), (0.1, 6000), (0.03, 12_000)], ids=["whole", "a tenth", "three percent"]
)
def test_intervals_of_every_estimator_hold_the_true_value_in_95_percent_of_logs(rate: float, rows: int) -> None:
    held = {"ips": 0, "snips": 0, "dr": 0, "switch": 0}
    unweighted = 0
    truth = np.mean([World(10_000 + seed, 20_000).value for seed in range(20)])
    for seed in range(500):
        world = World(seed, rows).sampled(rate)
        users = Users.of(np.arange(len(world.kept)))
        for name, found in estimates(world).items():
            lower, upper = interval(found, users)
            held[name] += lower <= truth <= upper
        log = world.log()
        lower, upper = interval(snips(Logged(log.reward, log.propensity, log.target, np.ones(len(log.reward)))), users)
        unweighted += lower <= truth <= upper
    print(rate, held, "snips without weights", unweighted)
    assert all(abs(count / 500 - 0.95) < 4 * (0.95 * 0.05 / 500) ** 0.5 for count in held.values()), held
    assert rate == 1.0 or unweighted == 0


@pytest.mark.skipif(not SLATES.exists(), reason="needs shared/data/ebnerd_sample")
def test_policies_over_real_slates_have_the_value_that_they_were_given() -> None:
    """Real slates and what users read before; what a click is worth, who chose and who would choose are drawn, so known."""
    table = pq.read_table(SLATES / "behaviors.parquet")
    slates = table["article_ids_inview"].to_pylist()
    users = Users.of(np.asarray(table["user_id"].to_pylist()))
    articles, codes = np.unique(np.concatenate(slates), return_inverse=True)
    sizes = np.array([len(slate) for slate in slates])
    slate = np.repeat(np.arange(len(slates)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    fixed = np.random.default_rng(0)
    worth = fixed.beta(1.5, 8, len(articles))[codes]

    def policy(scores: np.ndarray) -> np.ndarray:
        chance = np.exp(scores)
        return chance / np.bincount(slate, chance)[slate]

    logging, target = (policy(fixed.normal(0, 0.6, len(articles))[codes] + slope * worth) for slope in (1.0, 6.0))
    value = float(np.bincount(slate, target * worth).mean())
    at_random = float(np.bincount(slate, policy(np.zeros(len(codes))) * worth).mean())
    assert value > 1.1 * at_random
    held = dict.fromkeys(("ips", "snips", "dr"), 0)
    for seed in range(300):
        random = np.random.default_rng([seed, 1])
        keys = np.lexsort((random.exponential(size=len(codes)) / logging, slate))  # the first of each slate is the choice
        chosen = keys[first]
        reward = (random.random(len(slates)) < worth[chosen]).astype(float)
        log = Logged(reward, logging[chosen], target[chosen], np.ones(len(slates)))
        believed = worth + 0.05
        model = believed[chosen], np.bincount(slate, believed * target)
        for name, found in {"ips": ips(log), "snips": snips(log), "dr": doubly_robust(log, *model)}.items():
            lower, upper = interval(found, users)
            held[name] += lower <= value <= upper
    print({name: count / 300 for name, count in held.items()})
    assert all(abs(count / 300 - 0.95) < 4 * (0.95 * 0.05 / 300) ** 0.5 for count in held.values()), held


def test_a_good_model_of_the_reward_narrows_the_interval_and_a_bad_one_does_not_bias():
    world = World(0, 20_000)
    users, log = Users.of(np.arange(20_000)), world.log()
    plain, good, bad = ips(log), doubly_robust(log, *world.model(0.0)), doubly_robust(log, *world.model(0.3))
    widths = [upper - lower for lower, upper in (interval(found, users) for found in (plain, good, bad))]
    assert widths[1] < widths[0]
    for found, width in zip((plain, good, bad), widths, strict=True):
        assert abs(found.value - world.value) < width


def test_clipping_takes_away_what_it_cuts():
    log = Logged(np.array([1.0, 1.0]), np.array([0.1, 0.5]), np.array([1.0, 0.5]), np.ones(2))
    assert ips(log).value == pytest.approx((10 + 1) / 2)
    assert clipped_ips(log, 4.0).value == pytest.approx((4 + 1) / 2)
    assert snips(log).value == pytest.approx(1.0)


def test_support_says_when_one_row_speaks_for_all_or_the_log_lacks_choices():
    heavy = support(Logged(np.zeros(3), np.array([0.001, 0.5, 0.5]), np.array([1.0, 0.5, 0.5]), np.ones(3)))
    assert heavy.largest_share > 0.99
    assert heavy.effective_rows == pytest.approx(1.0, abs=0.01)
    lacking = support(Logged(np.zeros(4), np.full(4, 0.5), np.array([0.5, 0.5, 0.0, 0.0]), np.ones(4)))
    assert (lacking.reached, lacking.mean_rho) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("propensity", [0.0, 0.5], r"propensity: 1 of 2 are not in \(0, 1\]"),
        ("target", [0.5, 1.5], r"target: 1 of 2 are not in \[0, 1\]"),
        ("weight", [1.0, np.inf], "weight: 1 of 2 are not finite"),
        ("reward", [np.nan, 0.0], "reward: 1 of 2 are not finite"),
        ("reward", [0.0], "shapes differ"),
    ],
)
def test_what_no_log_can_hold_is_refused_by_name(field, values, said):
    columns = {"reward": [0.0, 1.0], "propensity": [0.5, 0.5], "target": [0.5, 0.5], "weight": [1.0, 1.0]} | {field: values}
    with pytest.raises(ValueError, match=said):
        Logged(**{name: np.array(column) for name, column in columns.items()})
