"""Sums of products of series, over requests and over users: all that means, slopes and clustered errors are made of. Pure.

The influence of a request on an estimate (its linearization) is a weighted sum of its series, w . z. So the squares of what
users contribute sum to w' G w with G = sum over users of (sum of z)(sum of z)', whatever the weights, and a batch changes G by
the users who are in it: a look costs as much after a million requests as after ten.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tidewheel.rollout.sequence import Estimate

ONE = "requests"  # the series that is 1 in every request


class Moments:
    """The moments of K series, the first of which is `ONE`, over N requests of U users.

    A series is kept less its value in the first request. No estimate depends on such a shift, and sums of squares do not
    cancel where a series hardly varies ("shifted data"; Chan, Golub, LeVeque 1983, The American Statistician 37(3)).
    """

    def __init__(self) -> None:
        self.num_requests = self.num_users = 0
        self._columns = {ONE: 0}
        self._shifts = np.zeros(1)  # (K,)
        self._places: dict[int, int] = {}  # user -> row of `_sums`
        self._sums = np.zeros((1, 1))  # (U or more, K) of each user
        self._of_requests = np.zeros((1, 1))  # (K, K) products, summed over requests
        self._of_users = np.zeros((1, 1))  # (K, K) products of the sums of a user, summed over users

    def add(self, users: Sequence[int], series: Mapping[str, Sequence[float]]) -> None:
        """N more requests: their users, and N values of each series. A series is zero in requests that do not name it."""
        if not len(users):
            return
        values = self._values(series, len(users))
        found = {user: at for at, user in enumerate(dict.fromkeys(users))}
        added = np.zeros((len(found), len(self._columns)))
        np.add.at(added, [found[user] for user in users], values)
        rows = self._rows(found)
        mixed = self._sums[rows].T @ added
        self._of_users += mixed + mixed.T + added.T @ added
        self._of_requests += values.T @ values
        self._sums[rows] += added
        self.num_requests += len(users)
        self.num_users = len(self._places)

    def total(self, name: str) -> float:
        """Sum of a series over requests."""
        at = self._columns.get(name)
        return 0.0 if at is None else self._shifts.item(at) * self.num_requests + self._of_requests.item(0, at)

    def mean(self, name: str) -> float:
        """Mean of a series over requests, of which there must be one."""
        at = self._columns.get(name)
        return 0.0 if at is None else self._shifts.item(at) + self._of_requests.item(0, at) / self.num_requests

    def comoment(self, name: str, other: str) -> float:
        """Sum over requests of the product of two series, each less its mean."""
        a, b, product = self._columns[name], self._columns[other], self._of_requests.item
        return product(a, b) - product(0, a) * product(0, b) / product(0, 0)

    def error(self, influence: Mapping[str, float]) -> float:
        """Standard error of a sum over requests, whose mean is zero, of series times weights; NaN below two users.

        Cochran 1977, "Sampling Techniques", chapter 9: var = U / (U - 1) sum_u (sum of u's requests)^2. Where terms cancel
        it is no smaller than their rounding, so that exactly zero means: nothing varied.
        """
        if self.num_users < 2:
            return math.nan
        weights = {self._columns[name]: weight for name, weight in influence.items() if name in self._columns}
        weights[0] = sum(weight * self._shifts.item(at) for at, weight in weights.items()) + weights.get(0, 0.0)
        product = self._of_users.item
        terms = [a * b * product(i, j) for i, a in weights.items() for j, b in weights.items()]
        squares = max(sum(terms), sys.float_info.epsilon * sum(map(abs, terms)))
        return math.sqrt(self.num_users / (self.num_users - 1) * squares)

    def ratio(self, numerator: str, denominator: str = ONE) -> Estimate:
        """Sum of a series over the sum of another with a standard error clustered on users; NaN where the latter is zero.

        Cochran 1977, section 6.4: the influence of a request is (y - r x) / sum of x.
        """
        total = self.total(denominator)
        if total == 0.0:
            return Estimate(math.nan, math.nan)
        ratio = self.mean(numerator) / self.mean(denominator)
        return Estimate(ratio, self.error({numerator: 1.0, denominator: -ratio}) / abs(total))

    def _values(self, series: Mapping[str, Sequence[float]], count: int) -> np.ndarray:
        """(N, K) values less the shifts; a new series gets a column, of zeros so far."""
        for name in series:
            self._columns.setdefault(name, len(self._columns))
        if new := len(self._columns) - len(self._shifts):
            self._shifts = np.pad(self._shifts, (0, new))
            self._sums = np.pad(self._sums, ((0, 0), (0, new)))
            self._of_requests, self._of_users = (np.pad(of, (0, new)) for of in (self._of_requests, self._of_users))
        values = np.zeros((count, len(self._columns)))
        values[:, 0] = 1.0
        for name, of_requests in series.items():
            values[:, self._columns[name]] = of_requests
        if not self.num_requests:
            self._shifts[1:] = values[0, 1:]
        return values - self._shifts

    def _rows(self, users: Iterable[int]) -> list[int]:
        """Where the sums of each user are; a new user gets a row, of zeros."""
        rows = [self._places.setdefault(user, len(self._places)) for user in users]
        if len(self._places) > len(self._sums):
            self._sums = np.pad(self._sums, ((0, 2 * len(self._places) - len(self._sums)), (0, 0)))
        return rows
