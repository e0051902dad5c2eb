//! How long a stream may live: as its route says, else as its connection manager does.
//!
//! The limit counts from the beginning of the stream, and so holds for filters that wait as well as for the router.
//! Source: `max_stream_duration` of Envoy's `RouteAction` and `HttpProtocolOptions`; gRPC over HTTP/2, "Timeout".

use std::time::Duration;

use http::HeaderValue;
use meltemi_compile::route::{Forward, RouteAction};
use tokio::time::Instant;

use crate::record::TakenRoute;
use crate::stream::{Stream, names};

/// The largest number that `grpc-timeout` can hold.
const GRPC_TIMEOUT_MAX: u128 = 99_999_999;

/// When the stream has lived long enough, on the route that it has now.
pub(crate) fn deadline(stream: &Stream<'_, '_>) -> Option<Instant> {
    let forward = stream.record.found.as_ref().and_then(forward_of);
    limit(stream, forward).map(|limit| Instant::from_std(stream.record.start) + limit)
}

/// A redirect to TLS is none of the route's actions.
fn forward_of(taken: &TakenRoute) -> Option<&Forward> {
    match &taken.found().route.action {
        RouteAction::Forward(forward) if !taken.found().is_tls_redirect() => Some(forward),
        _ => None,
    }
}

/// The limit of a forwarded stream. A gRPC request takes it along where the route knows of such limits; one without a
/// limit then goes on without what the client asked for, if only the connection manager's limit was lifted.
pub(super) fn announced(stream: &mut Stream<'_, '_>, forward: &Forward) -> Option<Duration> {
    let limit = limit(stream, Some(forward));
    if forward.stream_duration.is_none() || !stream.traits.is_grpc {
        return limit;
    }
    match limit {
        Some(limit) => announce(stream, limit),
        None if stream.manager.settings.max_stream_duration.is_some() => {
            stream.request.headers.remove(&names::GRPC_TIMEOUT);
        }
        None => {}
    }
    limit
}

fn limit(stream: &Stream<'_, '_>, forward: Option<&Forward>) -> Option<Duration> {
    let general = stream.manager.settings.max_stream_duration;
    let Some(duration) = forward.and_then(|forward| forward.stream_duration.as_deref()) else {
        return general;
    };
    let asked = duration.grpc_max.and_then(|max| Some((max, asked(stream)?)));
    let Some((max, asked)) = asked else {
        return duration.limit.map_or(general, |limit| Some(limit).filter(|limit| !limit.is_zero()));
    };
    let limit = if max.is_zero() { asked } else { asked.min(max) };
    Some(limit.saturating_sub(duration.grpc_offset))
}

/// Says in the request how long its client waits.
pub(super) fn announce(stream: &mut Stream<'_, '_>, limit: Duration) {
    let text = format!("{}m", limit.as_millis().min(GRPC_TIMEOUT_MAX));
    if let Ok(value) = HeaderValue::try_from(text) {
        stream.request.headers.set(names::GRPC_TIMEOUT.clone(), value);
    }
}

/// How long the client waits, as it says.
pub(super) fn asked(stream: &Stream<'_, '_>) -> Option<Duration> {
    stream.request.headers.get(&names::GRPC_TIMEOUT).and_then(grpc_timeout)
}

/// Up to 8 digits and a unit.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_a_unit_and_at_most_eight_digits() {
        let parse = |text: &'static str| grpc_timeout(&HeaderValue::from_static(text));
        assert_eq!(parse("200m"), Some(Duration::from_millis(200)));
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "5", "m", "123456789S", "1x", "-1S"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
