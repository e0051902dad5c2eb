"""A standard SPIFFE client: asks the Workload API of the socket twice, before and after a rotation, and prints what it got.

Usage: spiffe_identity.py SOCKET; the package is PyPI's `spiffe`, the certificates are read by `cryptography`.
"""

import json
import queue
import sys

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from spiffe import WorkloadApiClient


def told(context):
    svid = context.default_svid
    leaf = svid.leaf
    extension = lambda kind: leaf.extensions.get_extension_for_class(kind)
    names = extension(x509.SubjectAlternativeName)
    usage = extension(x509.KeyUsage)
    roots = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
    leaf.verify_directly_issued_by(next(iter(roots)))
    assert svid.private_key.public_key() == leaf.public_key(), "the key is another one's"
    assert isinstance(svid.private_key, ec.EllipticCurvePrivateKey)
    return {
        "id": str(svid.spiffe_id),
        "uris": names.value.get_values_for_type(x509.UniformResourceIdentifier),
        "critical": [names.critical, usage.critical],
        "signs": usage.value.digital_signature,
        "signs_certificates": usage.value.key_cert_sign,
        "server_and_client": set(extension(x509.ExtendedKeyUsage).value)
        == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
        "serial": leaf.serial_number,
        "roots": len(roots),
    }


def main():
    contexts, errors = queue.Queue(), []
    with WorkloadApiClient(socket_path=f"unix://{sys.argv[1]}") as client:
        client.stream_x509_contexts(contexts.put, errors.append)
        print(json.dumps([told(contexts.get(timeout=15)), told(contexts.get(timeout=15))]))
        assert not errors, errors


if __name__ == "__main__":
    main()
