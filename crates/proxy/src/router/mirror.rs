//! Copies of requests for other clusters (`request_mirror_policies`): sent and forgotten.
//!
//! Differs: Envoy sends the copy beside the request; here it leaves when the request is answered, with the body that
//! was kept meanwhile. A body above the buffer limit is not mirrored, as in Envoy without streaming shadows.

use std::rc::Rc;
use std::time::Duration;

use meltemi_compile::route::{Forward, Mirror};
use meltemi_http::client::ClientExchange;
use meltemi_http::{Frame, RequestHead, Text};

use crate::random;
use crate::stream::{Stream, split_port};
use crate::upstream::shared::{Permit, Resource};
use crate::upstream::{ActiveRequest, Cluster, PickContext};

/// How long a copy may take where the route has no timeout.
const LONGEST: Duration = Duration::from_secs(300);

/// The copies of one request. How many are under way is bounded by the breakers of their clusters.
pub(super) struct Mirroring {
    head: RequestHead,
    targets: Vec<(Rc<Cluster>, bool)>,
    timeout: Duration,
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
            let cluster = stream.generation.cluster(&mirror.cluster)?;
            Some((cluster.clone(), mirror.appends_shadow))
        };
        let targets: Vec<_> = forward.mirrors.iter().filter(drawn).filter_map(target).collect();
        if targets.is_empty() {
            return None;
        }
        Some(Mirroring { head: stream.request.clone(), targets, timeout: timeout.unwrap_or(LONGEST) })
    }

    /// Sends the copies with this body.
    pub(super) fn send(self, body: &[Frame]) {
        for (cluster, appends_shadow) in self.targets {
            let mut head = self.head.clone();
            if appends_shadow {
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
    let Ok(mut lease) = host.pool.lease(head.version, 0).await else { return };
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
