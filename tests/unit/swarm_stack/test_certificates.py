import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from swarm_stack.certificates import Certificate, CertificateInvalid, read_certificate, self_signed

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def written(tmp_path: Path, certificate: Certificate) -> tuple[Path, Path]:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(certificate.chain)
    key.write_bytes(certificate.key)
    return chain, key


@pytest.mark.parametrize("domain", ["mt5.example.com", "203.0.113.9"])
def test_a_certificate_made_here_is_for_its_name_and_can_be_served(
    tmp_path: Path, domain: str
) -> None:
    certificate = self_signed(domain)
    chain, key = written(tmp_path, certificate)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key)
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    said = [str(name.value) for name in names]
    assert said == [domain, "localhost", "127.0.0.1"]
    assert read_certificate(chain, key) == certificate


def test_a_certificate_that_has_expired_is_refused(tmp_path: Path) -> None:
    chain, key = written(tmp_path, self_signed("mt5.example.com", NOW))
    with pytest.raises(CertificateInvalid, match="expired on 2027-02-02"):
        read_certificate(chain, key, NOW + dt.timedelta(days=400))


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    chain, key = written(tmp_path, self_signed("mt5.example.com"))
    key.write_bytes(self_signed("mt5.example.com").key)
    with pytest.raises(CertificateInvalid, match="is not that of"):
        read_certificate(chain, key)


@pytest.mark.parametrize("text", [b"", b"-----BEGIN CERTIFICATE-----\nx\n", b"\xff\x00"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: bytes) -> None:
    chain, key = written(tmp_path, self_signed("mt5.example.com"))
    chain.write_bytes(text)
    with pytest.raises(CertificateInvalid, match="no certificate"):
        read_certificate(chain, key)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateInvalid, match=r"nowhere\.pem: No such file"):
        read_certificate(tmp_path / "nowhere.pem", tmp_path / "key.pem")
