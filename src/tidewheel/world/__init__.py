"""A seeded click world with known truth."""

from tidewheel.world.arms import HeldOut
from tidewheel.world.log import World
from tidewheel.world.policy import Scorer
from tidewheel.world.traffic import WorldTraffic

__all__ = ["HeldOut", "Scorer", "World", "WorldTraffic"]
