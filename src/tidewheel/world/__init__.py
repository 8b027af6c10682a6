"""A seeded click world with known truth."""

from tidewheel.world.log import World
from tidewheel.world.policy import Scorer
from tidewheel.world.traffic import WorldTraffic

__all__ = ["Scorer", "World", "WorldTraffic"]
