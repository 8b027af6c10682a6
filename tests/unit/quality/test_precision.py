import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewheel.quality.precision import NUM_GROUPS, group_totals, shares_precision, user_groups, worst_point_rows


def test_rows_of_one_user_are_in_one_group_wherever_they_lie():
    users = np.random.default_rng(0).integers(-(2**62), 2**62, 500)
    groups = user_groups(pa.table({"user_id": np.concatenate([users, users[::-1]])}))

    assert (groups[:500] == groups[500:][::-1]).all()
    assert groups.min() >= 0
    assert groups.max() < NUM_GROUPS
    assert len(np.unique(groups)) > 350  # 500 balls in 1024 urns leave about 395 of them used


def test_independent_rows_are_as_many_as_they_are():
    """Averages over 200 tables: n and N - 1 are what multinomial shares give."""
    generator, rows = np.random.default_rng(1), 5000
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    found = []
    for _ in range(200):
        bins = generator.choice(4, rows, p=shares)
        totals = group_totals(generator.integers(0, NUM_GROUPS, rows), bins, np.ones(rows), 4)
        precision = shares_precision(totals)
        found.append((precision.effective_rows, precision.degrees, worst_point_rows(totals)))

    rows_found, degrees, worst = np.mean(found, axis=0)
    assert rows_found == pytest.approx(rows, rel=0.02)
    assert degrees == pytest.approx(3, rel=0.02)
    # Of these bins F (1 - F) is largest after the first: 0.4 x 0.6 of the 0.25 that it could be.
    assert worst == pytest.approx(rows * 0.25 / 0.24, rel=0.05)


def test_users_whose_rows_are_all_alike_count_once():
    """n users, each in one bin with all of its k rows: exact as n rows, whatever k."""
    generator, users = np.random.default_rng(2), 900
    bins = np.repeat(generator.integers(0, 3, users), 20)
    groups = np.repeat(np.arange(users), 20)

    found = shares_precision(group_totals(groups, bins, np.ones(len(bins)), 3))

    assert found.effective_rows == pytest.approx(users - 1, rel=1e-9)


def test_the_precision_is_what_shares_really_vary_by():
    """The standard deviation of a weighted, clustered share over 400 logs, against what one of them says."""
    generator = np.random.default_rng(3)

    def log():
        rows = generator.poisson(8, 500) + 1
        user = np.repeat(np.arange(500), rows)
        likes = generator.beta(1, 3, 500)[user]
        return user, (generator.uniform(size=len(user)) < likes).astype(int), generator.uniform(1, 5, len(user))

    shares, said = [], []
    for _ in range(400):
        totals = group_totals(*log(), 2)
        share = totals[:, 1].sum() / totals.sum()
        shares.append(share)
        said.append(share * (1 - share) / shares_precision(totals).effective_rows)

    assert np.mean(said) == pytest.approx(np.var(shares), rel=4 * np.sqrt(2 / 400))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.floats(0.1, 9)), min_size=1, max_size=50), st.integers(0, 50)
)
def test_totals_of_two_parts_add_up_to_those_of_the_whole(rows, cut):
    groups, bins, weight = (np.array(column) for column in zip(*rows, strict=True))
    parts = [group_totals(groups[part], bins[part], weight[part], 4) for part in (slice(None, cut), slice(cut, None))]
    assert sum(parts) == pytest.approx(group_totals(groups, bins, weight, 4))
