//! Copies of requests for other clusters (`request_mirror_policies`): sent and forgotten.
//!
//! A copy leaves when the request has come in whole, with the body that was kept meanwhile, beside the request itself.
//! A body above the buffer limit is not mirrored, as in Envoy without streaming shadows.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use meltemi_compile::route::{Forward, Mirror};
use meltemi_http::client::ClientExchange;
use meltemi_http::{Frame, RequestHead, Text};

use crate::random;
use crate::stream::{Stream, names, split_port};
use crate::upstream::shared::{Permit, Resource};
use crate::upstream::transport::TransportOptions;
use crate::upstream::{ActiveRequest, Cluster, PickContext};

/// How long a copy may take where the route has no timeout.
const LONGEST: Duration = Duration::from_secs(300);

/// The copies of one request. How many are under way is bounded by the breakers of their clusters.
pub(super) struct Mirroring {
    head: RequestHead,
    targets: Vec<Target>,
    timeout: Duration,
}

struct Target {
    cluster: Rc<Cluster>,
    mirror: Mirror,
}

impl Mirroring {
    /// The copies to make, if any; the head is the one that goes upstream.
    pub(super) fn new(
        stream: &Stream<'_, '_>,
        forward: &Forward,
        timeout: Option<Duration>,
    ) -> Option<Mirroring> {
        if forward.mirrors.is_empty() || stream.traits.upgrade.is_some() {
            return None;
        }
        let drawn = |mirror: &&Mirror| random::below(1_000_000) < mirror.fraction_ppm as usize;
        let target = |mirror: &Mirror| {
            let cluster = stream.generation.cluster(&mirror.cluster.text(stream))?;
            Some(Target { cluster: cluster.clone(), mirror: mirror.clone() })
        };
        let targets: Vec<_> = forward.mirrors.iter().filter(drawn).filter_map(target).collect();
        if targets.is_empty() {
            return None;
        }
        let mut head = stream.request.clone();
        head.headers.set(names::X_ENVOY_INTERNAL.clone(), HeaderValue::from_static("true"));
        append_own_address(&mut head, stream.manager.worker.own_address);
        Some(Mirroring { head, targets, timeout: timeout.unwrap_or(LONGEST) })
    }

    /// Sends the copies with this body.
    pub(super) fn send(self, body: &[Frame]) {
        for Target { cluster, mirror } in self.targets {
            let mut head = self.head.clone();
            if let Some(host) = mirror.host_rewrite.as_ref().and_then(|host| host.to_str().ok()) {
                head.authority = Some(Text::from(host));
            } else if mirror.appends_shadow {
                head.authority = head.authority.map(|authority| shadowed(&authority));
            }
            let (body, timeout) = (body.to_vec(), self.timeout);
            tokio::task::spawn_local(async move {
                if tokio::time::timeout(timeout, copy(&cluster, head, body)).await.is_err() {
                    cluster.stats.counts.upstream_rq_timeout.inc();
                }
            });
        }
    }
}

/// A copy comes from the proxy itself, behind whoever the request came from.
fn append_own_address(head: &mut RequestHead, own: IpAddr) {
    let before = head.headers.get(&names::X_FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let joined = match before {
        Some(before) if !before.is_empty() => format!("{before},{own}"),
        _ => own.to_string(),
    };
    if let Ok(value) = HeaderValue::try_from(joined) {
        head.headers.set(names::X_FORWARDED_FOR.clone(), value);
    }
}

/// `shop.example:80` becomes `shop.example-shadow:80`.
fn shadowed(authority: &str) -> Text {
    match split_port(authority) {
        (host, Some(port)) => Text::from(format!("{host}-shadow:{port}")),
        (host, None) => Text::from(format!("{host}-shadow")),
    }
}

/// One copy. Nobody waits for it, so it just ends where it fails.
async fn copy(cluster: &Rc<Cluster>, head: RequestHead, body: Vec<Frame>) {
    let Some(host) = cluster.pick(&PickContext::default()) else { return };
    let limit = cluster.config.circuit_breakers[0].max_requests;
    let Some(permit) = Permit::take(&cluster.shared, 0, Resource::Requests, limit) else { return };
    let _active = ActiveRequest::new(host.clone(), permit);
    let Ok(mut lease) =
        host.pool.lease(head.version, 0, TransportOptions { record: None, request: Some(&head) }).await
    else {
        return;
    };
    let exchange = lease.exchange();
    let _ = send(exchange, head, body, cluster).await;
}

async fn send(
    exchange: ClientExchange<'_>,
    head: RequestHead,
    body: Vec<Frame>,
    cluster: &Cluster,
) -> Result<(), meltemi_http::ClientError> {
    let ClientExchange { mut send, mut recv } = exchange;
    let last = body.len().checked_sub(1);
    send.head(&head, last.is_none()).await?;
    for (number, frame) in body.into_iter().enumerate() {
        match frame {
            Frame::Data(bytes) => send.data(bytes, Some(number) == last).await?,
            Frame::Trailers(_) => send.data(bytes::Bytes::new(), true).await?,
        }
    }
    let mut answer = recv.head().await?;
    while answer.status.is_informational() {
        answer = recv.head().await?;
    }
    cluster.stats.codes.record(answer.status.as_u16());
    while !recv.is_end() && recv.next().await?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::shadowed;

    #[test]
    fn the_copy_says_so_in_its_host() {
        assert_eq!(&*shadowed("shop.example"), "shop.example-shadow");
        assert_eq!(&*shadowed("shop.example:8080"), "shop.example-shadow:8080");
    }
}
