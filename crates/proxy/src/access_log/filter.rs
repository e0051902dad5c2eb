//! A record as the filters of access logs see it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use http::HeaderName;
use meltemi_compile::log_filter::{LogType, LogView};
use meltemi_compile::matcher::RequestView;
use meltemi_http::RequestHead;

use super::values;
use crate::record::RecordView;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// See the module.
pub(super) struct Line<'v> {
    view: &'v RecordView<'v>,
    request: Option<Request<'v>>,
}

/// The request of a line.
pub(super) struct Request<'v>(&'v RequestHead);

impl<'v> Line<'v> {
    pub(super) fn new(view: &'v RecordView<'v>) -> Line<'v> {
        Line { view, request: view.request.map(Request) }
    }
}

impl<'v> LogView for Line<'v> {
    type Request = Request<'v>;

    fn status(&self) -> u32 {
        self.view.record.response_code.into()
    }

    fn duration(&self) -> Duration {
        let record = self.view.record;
        record.end.unwrap_or_else(Instant::now).saturating_duration_since(record.start)
    }

    fn is_health_check(&self) -> bool {
        self.view.record.is_health_check
    }

    fn has_flag(&self, name: &str) -> bool {
        self.view.record.flags.has_short(name)
    }

    fn has_flags(&self) -> bool {
        !self.view.record.flags.is_empty()
    }

    fn grpc_status(&self) -> u32 {
        values::grpc_status(self.view)
    }

    fn log_type(&self) -> LogType {
        self.view.log_type
    }

    fn request(&self) -> Option<&Request<'v>> {
        self.request.as_ref()
    }

    fn request_id(&self) -> Option<&[u8]> {
        Some(self.view.request?.headers.get(&REQUEST_ID)?.as_bytes())
    }

    fn random(&self) -> u64 {
        crate::random::next()
    }
}

impl RequestView for Request<'_> {
    fn method(&self) -> &str {
        self.0.method.as_str()
    }

    fn scheme(&self) -> &str {
        self.0.scheme.as_deref().unwrap_or("http")
    }

    fn authority(&self) -> &str {
        self.0.authority.as_deref().unwrap_or_default()
    }

    fn path(&self) -> &str {
        &self.0.path
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let mut values =
            self.0.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_bytes());
        let first = values.next()?;
        let mut joined = Cow::Borrowed(first);
        for value in values {
            let all = joined.to_mut();
            all.push(b',');
            all.extend_from_slice(value);
        }
        Some(joined)
    }

    fn random(&self) -> u64 {
        crate::random::next()
    }
}
