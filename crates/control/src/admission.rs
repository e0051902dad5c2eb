//! Whether a proxy is who it says it is: over TLS its node must be of the namespace and the service account of its
//! certificate. Source: `checkConnectionIdentity` in Istio's `pilot/pkg/xds/auth.go`.

use meltemi_envoy::config::core::v3::Node;
use meltemi_identity::SpiffeId;
use meltemi_xds::server::Proof;
use prost_types::value::Kind;

/// Whether the connection may be that of the node; the text says why not. Who may connect without TLS is a matter of the
/// address.
pub(crate) fn check(proof: &Proof, node: &Node) -> Result<(), String> {
    let name = match proof {
        Proof::Plaintext | Proof::UnixSocket => return Ok(()),
        Proof::Tls(None) => return Err("xDS over TLS needs a client certificate".to_owned()),
        Proof::Tls(Some(name)) => name,
    };
    let id: SpiffeId = name.parse().map_err(|e| format!("the client certificate: {e}"))?;
    let (namespace, account) =
        id.service_account().ok_or_else(|| format!("{id} is not the id of a service account"))?;
    for claimed in claimed_namespaces(node) {
        if claimed != namespace {
            return Err(format!("the node is of namespace {claimed:?}, the certificate is of {id}"));
        }
    }
    if let Some(claimed) = text(node, "SERVICE_ACCOUNT").filter(|claimed| *claimed != account) {
        return Err(format!("the node is of service account {claimed:?}, the certificate is of {id}"));
    }
    Ok(())
}

/// Whether the connection has proved to be of the namespace, so that it may read the Secrets there. Stricter than
/// [`check`]: what a node leaves unsaid proves nothing.
pub(crate) fn proves_namespace(proof: &Proof, namespace: &str) -> bool {
    let Proof::Tls(Some(name)) = proof else { return false };
    let id: Option<SpiffeId> = name.parse().ok();
    id.is_some_and(|id| id.service_account().is_some_and(|(proved, _)| proved == namespace))
}

/// Every place in which a node names its namespace: each of them is believed by something.
fn claimed_namespaces(node: &Node) -> impl Iterator<Item = &str> {
    let mut parts = node.id.split('~').skip(2);
    let of_name = parts.next().and_then(|name| name.rsplit_once('.')).map(|(_, namespace)| namespace);
    let of_domain = parts.next().and_then(|domain| domain.split('.').next()).filter(|name| !name.is_empty());
    [text(node, "NAMESPACE"), of_name, of_domain].into_iter().flatten()
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value};

    use super::*;

    fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
        Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Default::default() }
    }

    fn tls(name: &str) -> Proof {
        Proof::Tls(Some(name.into()))
    }

    const OWN: &str = "sidecar~1.1.1.1~cart-0.shop~shop.svc.cluster.local";

    #[test]
    fn a_node_may_be_its_own() {
        let own = node(OWN, &[("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "cart")]);
        assert_eq!(check(&tls("spiffe://td/ns/shop/sa/cart"), &own), Ok(()));
        assert_eq!(check(&Proof::Plaintext, &own), Ok(()));
        assert_eq!(
            check(&tls("spiffe://td/ns/shop/sa/cart"), &node(OWN, &[])),
            Ok(()),
            "as istiod: nothing claimed"
        );
    }

    #[test]
    fn only_a_certificate_opens_the_secrets_of_its_namespace() {
        let cart = tls("spiffe://td/ns/shop/sa/cart");
        assert!(proves_namespace(&cart, "shop") && !proves_namespace(&cart, "bank"));
        for proof in [Proof::Plaintext, Proof::UnixSocket, Proof::Tls(None), tls("spiffe://td/shop")] {
            assert!(!proves_namespace(&proof, "shop"));
        }
    }

    #[test]
    fn a_node_may_not_be_somebody_elses() {
        let cart = tls("spiffe://td/ns/shop/sa/cart");
        for (id, metadata) in [
            (OWN, &[("SERVICE_ACCOUNT", "bank")][..]),
            (OWN, &[("NAMESPACE", "bank")]),
            ("sidecar~1.1.1.1~cart-0.bank~shop.svc.cluster.local", &[("NAMESPACE", "shop")]),
            ("sidecar~1.1.1.1~cart-0.shop~bank.svc.cluster.local", &[("NAMESPACE", "shop")]),
            ("router~1.1.1.1~edge~bank", &[]),
        ] {
            assert!(check(&cart, &node(id, metadata)).is_err(), "{id} {metadata:?}");
        }
        assert!(check(&Proof::Tls(None), &node(OWN, &[])).is_err());
        assert!(check(&tls("spiffe://td/robot"), &node(OWN, &[])).is_err());
    }
}
