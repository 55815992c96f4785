"""Bytewax inputs and outputs for Kafka, InfluxDB, S3, SQLite and polled sources; they know nothing of the exchange."""
