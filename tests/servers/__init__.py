"""Real servers on loopback, without Docker, for tests and for local use.

Apache Kafka (KRaft), InfluxDB 2, an S3 server (versitygw) and Toxiproxy, a TCP proxy that injects faults.
They are fetched or built once from the language registries into a cache (`build`), run on free ports with
credentials made up at the first start, and are stopped by process id. `python -m tests.servers` runs them in
the background; the classes `kafka.Kafka`, `influxdb.Influxdb`, `s3.S3` and `toxiproxy.Toxiproxy` are for
tests that kill a server and start it again on the same port with the same data; `fixtures` gives pytest the
running ones.
"""
