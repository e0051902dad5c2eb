//! Frames that cost us work and their sender nothing.
//!
//! Owns the two limits that `h2` leaves to its user: PRIORITY and WINDOW_UPDATE frames against the streams and the data
//! that could justify them. `h2` bounds the others itself: PING and SETTINGS by not reading on until their answers are
//! taken, empty and tiny DATA, CONTINUATION and resets by count. Source of the numbers: Envoy's
//! `max_inbound_priority_frames_per_stream` and `max_inbound_window_update_frames_per_data_frame_sent`.

/// WINDOW_UPDATE frames that a connection may send for nothing.
const WINDOW_UPDATES_FREE: u64 = 5;
/// WINDOW_UPDATE frames per stream: one for it, one for the connection.
const WINDOW_UPDATES_PER_STREAM: u64 = 2;
/// A piece of data: a peer that takes larger frames may still acknowledge in steps of the smallest frame limit.
const PIECE_BYTES: usize = 16 << 10;

const FRAME_HEAD_BYTES: usize = 9;
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;

/// What a peer may send for nothing.
#[derive(Clone, Copy, Debug)]
pub struct FloodLimits {
    /// `max_inbound_priority_frames_per_stream`, default 100: PRIORITY frames per stream, one stream more than were opened.
    pub priorities_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`, default 10: WINDOW_UPDATE frames per piece of data that we
    /// sent, twice as many because there is one for the stream and one for the connection.
    pub window_updates_per_data_frame: u32,
}

impl Default for FloodLimits {
    fn default() -> FloodLimits {
        FloodLimits { priorities_per_stream: 100, window_updates_per_data_frame: 10 }
    }
}

/// What has passed on a connection.
#[derive(Default)]
pub(crate) struct FloodGuard {
    inbound: Walk,
    outbound: Walk,
    streams: u64,
    pieces_sent: u64,
    priorities: u64,
    window_updates: u64,
    limits: FloodLimits,
    /// The highest stream that `h2` reset as malformed.
    malformed: u32,
}

impl FloodGuard {
    pub(crate) fn new(limits: FloodLimits) -> FloodGuard {
        FloodGuard { limits, ..FloodGuard::default() }
    }

    /// The highest stream that was reset with PROTOCOL_ERROR.
    pub(crate) fn malformed(&self) -> u32 {
        self.malformed
    }

    /// Looks at received bytes; whether their sender is still within its limits.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> bool {
        let FloodGuard { inbound, streams, priorities, window_updates, .. } = self;
        inbound.frames(bytes, |frame| match frame.kind {
            HEADERS => *streams += 1,
            PRIORITY => *priorities += 1,
            WINDOW_UPDATE => *window_updates += 1,
            _ => {}
        });
        let limits = self.limits;
        self.priorities <= u64::from(limits.priorities_per_stream) * (1 + self.streams)
            && self.window_updates
                <= WINDOW_UPDATES_FREE
                    + WINDOW_UPDATES_PER_STREAM * self.streams
                    + 2 * u64::from(limits.window_updates_per_data_frame) * self.pieces_sent
    }

    /// Looks at bytes that we send.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let FloodGuard { outbound, streams, pieces_sent, malformed, .. } = self;
        outbound.frames(bytes, |frame| match frame.kind {
            HEADERS => *streams += 1,
            DATA => *pieces_sent += 1 + (frame.length / PIECE_BYTES) as u64,
            RST_STREAM if frame.rest.starts_with(&PROTOCOL_ERROR) => {
                *malformed = frame.stream.max(*malformed)
            }
            _ => {}
        });
    }
}

/// The error code PROTOCOL_ERROR, as RST_STREAM carries it.
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

/// A frame whose head has passed.
struct Passing<'b> {
    kind: u8,
    length: usize,
    stream: u32,
    /// What of the payload is in the same piece; `h2` writes small frames whole.
    rest: &'b [u8],
}

/// Finds the frames in one direction, however its bytes are cut.
#[derive(Default)]
struct Walk {
    head: [u8; FRAME_HEAD_BYTES],
    have: usize,
    skip: usize,
    started: bool,
}

impl Walk {
    fn frames(&mut self, mut bytes: &[u8], mut found: impl FnMut(Passing<'_>)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (FRAME_HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < FRAME_HEAD_BYTES {
                return;
            }
            self.have = 0;
            // A client's direction starts with the preface.
            if !std::mem::replace(&mut self.started, true) && self.head.starts_with(b"PRI") {
                self.skip = PREFACE_BYTES - FRAME_HEAD_BYTES;
                continue;
            }
            let [high, middle, low, kind, _flags, stream @ ..] = self.head;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            let stream = u32::from_be_bytes(stream) & !(1 << 31);
            found(Passing { kind, length: self.skip, stream, rest: bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1][..], payload].concat()
    }

    #[test]
    fn window_updates_need_streams_or_data() {
        let mut guard = FloodGuard::default();
        assert!(guard.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(guard.received(&frame(WINDOW_UPDATE, &[0, 0, 0, 1]).repeat(5)));
        assert!(guard.received(&frame(HEADERS, b"abc")));
        assert!(guard.received(&frame(WINDOW_UPDATE, &[0, 0, 0, 1]).repeat(2)));
        guard.sent(&frame(DATA, b"data"));
        assert!(guard.received(&frame(WINDOW_UPDATE, &[0, 0, 0, 1]).repeat(20)));
        assert!(!guard.received(&frame(WINDOW_UPDATE, &[0, 0, 0, 1])));
    }

    #[test]
    fn priorities_are_counted_per_stream_however_the_bytes_are_cut() {
        let wire = frame(PRIORITY, &[0, 0, 0, 3, 1]).repeat(101);
        let mut whole = FloodGuard::default();
        assert!(!whole.received(&wire));
        let mut cut = FloodGuard::default();
        let within = wire.chunks(1).take_while(|byte| cut.received(byte)).count();
        // The head of the 101st frame is enough to know.
        assert_eq!(within, 100 * 14 + 8);
    }
}
