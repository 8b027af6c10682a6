"""A seeded click world with known truth."""

from tidewheel.world.log import LOG_SCHEMA, World
from tidewheel.world.policy import Scorer
from tidewheel.world.traffic import WorldTraffic

__all__ = ["LOG_SCHEMA", "Scorer", "World", "WorldTraffic"]
