"""A local web page of the market and the pipeline, from the embedded stores: `just page`. It reads and never writes."""
