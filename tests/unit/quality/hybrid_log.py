"""Hybrid logs of one population whose truth is known: users come back, engaged impressions are all kept, others by rate."""

import numpy as np
import pyarrow as pa

from tidewheel.contracts.schema import Entity, FeatureKind, FeatureSpec

FEATURES = (
    FeatureSpec(id=1, name="segment", kind=FeatureKind.VOCABULARY, entity=Entity.USER),
    FeatureSpec(id=2, name="tenure", kind=FeatureKind.NUMERIC, entity=Entity.USER),
    FeatureSpec(id=3, name="surface", kind=FeatureKind.VOCABULARY, entity=Entity.CONTEXT),
    FeatureSpec(id=4, name="price", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
    FeatureSpec(id=5, name="affinity", kind=FeatureKind.NUMERIC, entity=Entity.ITEM),
)
LABELS = ("click", "like")


def hybrid_log(seed, users=600, impressions=8_000, negative_rate=0.2, affinity=0.0):
    """Impressions of users drawn anew, in unequal numbers. `affinity` shifts what makes them click: true drift."""
    generator = np.random.default_rng(seed)
    activity = generator.gamma(1.0, size=users)
    user = generator.choice(users, impressions, p=activity / activity.sum())
    segment = generator.choice(4, users, p=[0.4, 0.3, 0.2, 0.1])
    tenure = generator.exponential(100.0, users)
    taste = generator.normal(0, 0.5, users)
    columns = {
        "user_id": user,
        "segment": np.array(["a", "b", "c", "d"])[segment[user]],
        "tenure": tenure[user],
        "surface": np.array(["home", "search"])[generator.integers(0, 2, impressions)],
        "price": generator.lognormal(size=impressions),
        "affinity": affinity + generator.normal(size=impressions) + taste[user],
    }
    logit = -2.0 + columns["affinity"] + 0.3 * segment[user]
    chance = {"click": 1 / (1 + np.exp(-logit)), "like": 1 / (1 + np.exp(2.0 - logit))}
    labels = {name: generator.uniform(size=impressions) < probability for name, probability in chance.items()}
    inclusion = np.where(labels["click"] | labels["like"], 1.0, negative_rate)
    kept = generator.uniform(size=impressions) < inclusion
    columns |= {f"label_{name}": values.astype(np.int8) for name, values in labels.items()}
    columns |= {"weight": 1 / inclusion, **{f"p_{name}": values for name, values in chance.items()}}
    return pa.table({name: pa.array(values[kept]) for name, values in columns.items()})


def unweighted(table):
    """The same rows, each counted once."""
    return table.set_column(table.column_names.index("weight"), "weight", pa.array(np.ones(table.num_rows)))
