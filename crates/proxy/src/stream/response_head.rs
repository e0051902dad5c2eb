//! How the proxy writes itself into a response.
//!
//! Source: Envoy's `ConnectionManagerImpl::ActiveStream::encodeHeaders` and `mutateResponseHeaders`.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderValue};
use meltemi_compile::program::{HttpConnectionManager, ServerHeader};
use meltemi_http::{Headers, is_hop_by_hop};

use super::names;

/// Finishes the headers of a response on their way to the client. `request_id` is the request's,
/// if the client is to know it.
pub(crate) fn finish(
    headers: &mut Headers,
    settings: &HttpConnectionManager,
    request_id: Option<&HeaderValue>,
    is_upgrade: bool,
) {
    headers.retain(|name, _| !is_hop_by_hop(name) || keeps(name, is_upgrade));
    if !headers.contains(&header::DATE) {
        headers.append(header::DATE, date());
    }
    let replaces = match settings.server_header {
        ServerHeader::Overwrite => true,
        ServerHeader::AppendIfAbsent => !headers.contains(&header::SERVER),
        ServerHeader::PassThrough => false,
    };
    if replaces {
        headers.set(header::SERVER, settings.server_name.clone());
    }
    if let Some(id) = request_id {
        headers.set(names::X_REQUEST_ID.clone(), id.clone());
    }
    if let Some(via) = &settings.forwarding.via {
        append_via(headers, via);
    }
}

/// Adds ourselves to `via`.
pub(crate) fn append_via(headers: &mut Headers, via: &HeaderValue) {
    let value = match headers.get(&header::VIA) {
        Some(old) => {
            let joined = [old.as_bytes(), b", ", via.as_bytes()].concat();
            HeaderValue::try_from(joined).unwrap_or_else(|_| via.clone())
        }
        None => via.clone(),
    };
    headers.set(header::VIA, value);
}

fn keeps(name: &http::HeaderName, is_upgrade: bool) -> bool {
    is_upgrade && (*name == header::CONNECTION || *name == header::UPGRADE)
}

struct Date {
    second: u64,
    value: HeaderValue,
}

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { second: 0, value: HeaderValue::from_static("-") }) };
}

/// The `date` header of now; formatted once per second and worker.
fn date() -> HeaderValue {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    DATE.with_borrow_mut(|date| {
        if date.second != second {
            date.second = second;
            date.value = format_date(second);
        }
        date.value.clone()
    })
}

fn format_date(second: u64) -> HeaderValue {
    let stamp = jiff::Timestamp::from_second(i64::try_from(second).unwrap_or_default()).unwrap_or_default();
    let text = stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::try_from(text).expect("invariant: a date is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_has_the_form_of_rfc_9110() {
        assert_eq!(format_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
