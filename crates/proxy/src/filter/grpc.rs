//! Counting a gRPC call: its messages both ways, its status, and the time that the upstream took.
//!
//! Source: Envoy's grpc_stats filter, `Grpc::FrameInspector` and `Grpc::ContextImpl`.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use meltemi_http::{Headers, ResponseHead};

use crate::record::{FilterObject, Sharing, State};
use crate::stats::GrpcCounts;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The filter state object that loggers read.
const OBJECT: &str = "envoy.filters.http.grpc_stats";

/// One call.
#[derive(Debug)]
pub(crate) struct GrpcRun {
    counts: Option<Arc<GrpcCounts>>,
    upstream_stats: bool,
    emit: bool,
    start: Instant,
    request: Messages,
    response: Messages,
    is_response: Cell<bool>,
}

impl GrpcRun {
    pub(super) fn new(counts: Option<Arc<GrpcCounts>>, upstream_stats: bool, emit: bool) -> GrpcRun {
        GrpcRun {
            counts,
            upstream_stats,
            emit,
            start: Instant::now(),
            request: Messages::default(),
            response: Messages::default(),
            is_response: Cell::new(false),
        }
    }

    /// Bytes of the request's body.
    pub(crate) fn request_bytes(&self, bytes: &[u8]) {
        let new = self.request.inspect(bytes);
        if let Some(counts) = self.counts.as_ref().filter(|_| new > 0) {
            counts.request_message_count.add(new);
        }
    }

    /// The head of the response; without a body it may hold the status.
    pub(super) fn response_head(&self, head: &ResponseHead) {
        let content_type = head.headers.get(&http::header::CONTENT_TYPE);
        let is_grpc =
            content_type.is_some_and(|value| meltemi_compile::filter::grpc_stats::is_grpc(value.as_bytes()));
        self.is_response.set(is_grpc && head.status == http::StatusCode::OK);
        self.ended(&head.headers);
    }

    /// Bytes of the response's body.
    pub(super) fn response_bytes(&self, bytes: &[u8]) {
        if !self.is_response.get() {
            return;
        }
        let new = self.response.inspect(bytes);
        if let Some(counts) = self.counts.as_ref().filter(|_| new > 0) {
            counts.response_message_count.add(new);
        }
    }

    /// Trailers, or a head that may stand for them.
    pub(super) fn ended(&self, fields: &Headers) {
        let (Some(counts), Some(status)) = (&self.counts, fields.get_str(&GRPC_STATUS)) else { return };
        counts.ended(status);
        if self.upstream_stats {
            counts.upstream_rq_time.record_millis(self.start.elapsed());
        }
    }

    /// Leaves the numbers of messages for loggers.
    pub(crate) fn leave(&self, state: &mut State) {
        let (request, response) = (self.request.count.get(), self.response.count.get());
        if !self.emit || request + response == 0 {
            return;
        }
        let text = format!("{request},{response}").into();
        let object = FilterObject { text, is_hashable: false, sharing: Sharing::None };
        // Nobody else has this key.
        state.set_object(OBJECT.into(), object);
    }
}

/// Messages in a stream of bytes: a flag, four bytes of length, and so many bytes.
#[derive(Debug, Default)]
struct Messages {
    count: Cell<u64>,
    /// Bytes of the message's head that were seen, 0 to 4.
    seen: Cell<u8>,
    /// The length, as far as it was seen; then what is left of the message.
    left: Cell<u64>,
    in_body: Cell<bool>,
}

impl Messages {
    /// Takes in bytes; gives how many messages began in them.
    fn inspect(&self, mut bytes: &[u8]) -> u64 {
        let before = self.count.get();
        while let Some((&first, rest)) = bytes.split_first() {
            if self.in_body.get() {
                let skipped = bytes.len().min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
                self.left.set(self.left.get() - skipped as u64);
                self.in_body.set(self.left.get() > 0);
                bytes = &bytes[skipped..];
                continue;
            }
            self.head_byte(first);
            bytes = rest;
        }
        self.count.get() - before
    }

    fn head_byte(&self, byte: u8) {
        const HEAD_BYTES: u8 = 5;
        match self.seen.get() {
            0 => {
                self.count.set(self.count.get() + 1);
                self.left.set(0);
            }
            _ => self.left.set(self.left.get() << 8 | u64::from(byte)),
        }
        let seen = self.seen.get() + 1;
        self.seen.set(seen % HEAD_BYTES);
        self.in_body.set(seen == HEAD_BYTES && self.left.get() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_whatever_pieces_they_come_in() {
        let stream: Vec<u8> =
            [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 1, 0], &[7; 256]].concat();
        for size in [1, 2, 3, 7, 1000] {
            let messages = Messages::default();
            let counted: u64 = stream.chunks(size).map(|piece| messages.inspect(piece)).sum();
            assert_eq!(
                (counted, messages.in_body.get(), messages.seen.get()),
                (3, false, 0),
                "pieces of {size}"
            );
        }
    }
}
