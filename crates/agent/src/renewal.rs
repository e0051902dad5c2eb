//! Keeps a workload's certificate fresh: a first one as soon as possible, then another at half of its life. What cannot
//! be renewed is served until it ends, and tried again with growing pauses.
//!
//! Source: Istio's `security/pkg/nodeagent/cache`: grace ratio 0.5, jitter of 1 %.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meltemi_runtime::backoff::{Backoff, jitter};
use tokio::sync::watch;

use crate::certificate_client::{Attempt, CertificateClient, Failure};
use crate::limits::{CLOCK_CHECK, RETRY_BASE, RETRY_MAX};
use crate::svid::Svid;

/// Runs until nothing can bring a certificate any more: the control plane refuses, and there is no good certificate to
/// prove anything with. Gives its reason.
pub(crate) async fn keep(client: CertificateClient, current: watch::Sender<Option<Arc<Svid>>>) -> String {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_MAX);
    let mut attempt: Option<Attempt> = None;
    loop {
        let known = current.borrow().clone();
        match renew(&client, known.clone(), &mut attempt).await {
            Ok(svid) => {
                attempt = None;
                backoff.reset();
                let lifetime = svid.not_after.duration_since(SystemTime::now()).unwrap_or_default();
                tracing::info!(identity = %svid.id, ?lifetime, "certificate received");
                let renew_at = svid.renew_at;
                current.send_replace(Some(Arc::new(svid)));
                wait_until(renew_at).await;
            }
            Err(failure) => {
                let is_good = known.as_ref().is_some_and(|svid| svid.is_good(SystemTime::now()));
                if let Failure::Refused(reason) = &failure
                    && !is_good
                {
                    return reason.clone();
                }
                let retry_in = backoff.next_pause(jitter());
                tracing::warn!(error = %failure, ?retry_in, has_certificate = is_good, "no certificate");
                tokio::time::sleep(retry_in).await;
            }
        }
    }
}

async fn renew(
    client: &CertificateClient,
    known: Option<Arc<Svid>>,
    attempt: &mut Option<Attempt>,
) -> Result<Svid, Failure> {
    let current = match attempt.take() {
        Some(attempt) => attempt,
        None => client.attempt().await?,
    };
    let current = attempt.insert(current);
    client.get(known, current).await
}

/// By the clock on the wall, which certificates go by.
async fn wait_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(CLOCK_CHECK).max(Duration::from_millis(1))).await;
    }
}
