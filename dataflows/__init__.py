"""What the platform means: the bar, the exchange's calendar, the settings, and the legs of the stream."""
