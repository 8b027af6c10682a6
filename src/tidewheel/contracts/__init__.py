"""What the parts of tidewheel say to each other. pydantic and the standard library only."""
