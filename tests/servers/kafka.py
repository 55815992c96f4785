"""Apache Kafka: one KRaft node that is broker and controller."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.build import ARTEFACTS
from tests.servers.process import HOST, Server, ServerError, free_port, write_private

_LOG4J = """\
appenders=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c{1}: %m%n
rootLogger.level=WARN
rootLogger.appenderRefs=console
rootLogger.appenderRef.console.ref=console
"""

# Small and quick on one machine; what tells a production broker from this one is its replicas and its heap.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "MAIN",
    # Topics are made by the platform or by a test, never by a misspelt name.
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "num.network.threads": "2",
    "num.io.threads": "2",
    # A broker killed by -9 may register again only when its old session is over: 9 s by default.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
}


class Kafka(Server):
    """A Kafka broker without authentication on its main listener.

    Args:
        folder: where its configuration, log and data are kept.
        sasl_tls: adds a listener with TLS, by a certificate authority made for it, and SASL/PLAIN;
            `secure_client()` has the client's settings.
        proxied: adds a listener that tells clients to come by way of `proxy_address`, where a proxy must
            listen and forward to `proxied_address`. (By the main listener clients would go round a proxy:
            a broker names the address at which it wants to be called.)
    """

    name = "kafka"
    port_names = ("main", "controller")
    secret_names = ("sasl_password",)

    def __init__(self, folder: Path, *, sasl_tls: bool = False, proxied: bool = False) -> None:
        super().__init__(folder)
        if sasl_tls:
            self.ports["sasl_tls"] = free_port()
        if proxied:
            self.ports |= {"proxied": free_port(), "proxy": free_port()}

    @property
    def proxied_address(self) -> str:
        """Where a proxy forwards to."""
        return f"{HOST}:{self.ports['proxied']}"

    @property
    def proxy_address(self) -> str:
        """Where the proxy listens; the bootstrap address of clients that shall come through it."""
        return f"{HOST}:{self.ports['proxy']}"

    def environment(self) -> dict[str, str]:
        return {"EGX_TEST_KAFKA": self.address}

    def secure_client(self) -> dict[str, str]:
        """The librdkafka properties by which a client uses the listener with TLS and SASL."""
        return {
            "bootstrap.servers": f"{HOST}:{self.ports['sasl_tls']}",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "egx",
            "sasl.password": self.secrets["sasl_password"],
            "ssl.ca.location": str(self.folder / "ca.pem"),
        }

    def _prepare(self) -> None:
        listeners = {"MAIN": "main", "CONTROLLER": "controller", "PROXIED": "proxied", "SECURE": "sasl_tls"}
        listeners = {name: port for name, port in listeners.items() if port in self.ports}
        bound = {name: f"{name}://{HOST}:{self.ports[port]}" for name, port in listeners.items()}
        advertised = {name: address for name, address in bound.items() if name != "CONTROLLER"}
        if "PROXIED" in advertised:
            advertised["PROXIED"] = f"PROXIED://{self.proxy_address}"
        settings = _SETTINGS | {
            "controller.quorum.voters": f"1@{HOST}:{self.ports['controller']}",
            "listeners": ",".join(bound.values()),
            "advertised.listeners": ",".join(advertised.values()),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'SASL_SSL' if name == 'SECURE' else 'PLAINTEXT'}" for name in listeners
            ),
            "log.dirs": str(self.folder / "data"),
        }
        if "SECURE" in listeners:
            password = self.secrets["sasl_password"]
            _write_certificates(self.folder)
            settings |= {
                "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.secure.plain.sasl.jaas.config": (
                    f'org.apache.kafka.common.security.plain.PlainLoginModule required user_egx="{password}";'
                ),
                "listener.name.secure.ssl.keystore.type": "PEM",
                "listener.name.secure.ssl.keystore.location": str(self.folder / "broker.pem"),
            }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        write_private(self.folder / "server.properties", text)
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatted = subprocess.run(
            self._java(
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={cluster}",
                f"--config={self.folder / 'server.properties'}",
            ),
            umask=0o077,
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode:
            raise ServerError(f"kafka could not format {self.folder}:\n{formatted.stdout}{formatted.stderr}")

    def _java(self, *arguments: str) -> list[str]:
        jars = ARTEFACTS[self.name].get()
        return [
            "java",
            "-Xms128m",
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            f"{jars}/*",
            *arguments,
        ]

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        properties = str(self.folder / "server.properties")
        return self._java("kafka.Kafka", properties), {}

    def _healthy(self) -> bool:
        """Whether the broker is registered and every partition that it has has a leader."""
        quiet: dict[str, Any] = {"bootstrap.servers": self.address, "log_level": 0}
        try:
            metadata = AdminClient(quiet).list_topics(timeout=1)
        except KafkaException:
            return False
        partitions = [p for topic in metadata.topics.values() for p in topic.partitions.values()]
        return bool(metadata.brokers) and all(p.leader in metadata.brokers for p in partitions)


def _write_certificates(folder: Path) -> None:
    """Writes `ca.pem`, a new authority's certificate, and `broker.pem`, the broker's key and certificate."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test broker")])
    authority_key = ec.generate_private_key(ec.SECP256R1())
    broker_key = ec.generate_private_key(ec.SECP256R1())
    authority_certificate = (
        certificate("authority of a test broker", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    broker_certificate = (
        certificate("test broker", broker_key)
        .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = broker_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(folder / "ca.pem", authority_certificate.public_bytes(pem).decode())
    write_private(folder / "broker.pem", (key + broker_certificate.public_bytes(pem)).decode())
