"""nginx's certificate: made here for a trial, or given; kept in a volume that nginx watches."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What browsers accept of a certificate at most, since 2020.
DAYS: Final = 397


class CertificateInvalid(Exception):
    """The certificate and the key cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its private key, in PEM."""

    chain: bytes
    key: bytes

    @property
    def expires(self) -> dt.datetime:
        """When the leaf expires."""
        return x509.load_pem_x509_certificate(self.chain).not_valid_after_utc


def self_signed(domain: str, now: dt.datetime | None = None) -> Certificate:
    """A certificate for one name (and `localhost`), which nobody trusts who is not told to.

    Args:
        domain: A DNS name or an IP address.
        now: From when it is valid.
    """
    now = now or dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain[:64])])
    names = [_general_name(one) for one in dict.fromkeys((domain, "localhost", "127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ.
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def read_certificate(chain: Path, key: Path, now: dt.datetime | None = None) -> Certificate:
    """A certificate from files, such as certbot's `fullchain.pem` and `privkey.pem`.

    Raises:
        CertificateInvalid: They cannot be read, do not belong together, or it has expired.
    """
    now = now or dt.datetime.now(dt.UTC)
    try:
        certificate = Certificate(chain.read_bytes(), key.read_bytes())
        leaf = x509.load_pem_x509_certificate(certificate.chain)
        private = serialization.load_pem_private_key(certificate.key, password=None)
    except OSError as unread:
        raise CertificateInvalid(f"{unread.filename}: {unread.strerror}") from None
    except (ValueError, TypeError):
        raise CertificateInvalid(
            f"{chain} and {key} are no certificate and unencrypted key in PEM"
        ) from None
    if private.public_key() != leaf.public_key():
        raise CertificateInvalid(f"the key in {key} is not that of the certificate in {chain}")
    if leaf.not_valid_after_utc <= now:
        raise CertificateInvalid(f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    return certificate


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
