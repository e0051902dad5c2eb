//! Per-thread pool of read and write buffers.
//!
//! Owns the rule that only a connection with something in flight holds a buffer: an idle keep-alive connection costs its
//! state alone. Buffers come back with their memory when nobody holds a slice of it any more.

use std::cell::RefCell;

use bytes::BytesMut;

/// Size of a pooled buffer: a usual head with a small body fits into one read.
pub(crate) const BUFFER_BYTES: usize = 16 << 10;

/// Largest buffer that is kept: the largest read of an HTTP/1 body, and more than a busy HTTP/2 connection gathers for
/// one write.
const KEPT_MAX_BYTES: usize = 256 << 10;

/// Memory kept per thread. More in flight is allocated and freed.
const POOL_MAX_BYTES: usize = 1 << 20;

struct Pool {
    buffers: Vec<BytesMut>,
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { buffers: Vec::new(), bytes: 0 }) };
}

/// An empty buffer of at least [`BUFFER_BYTES`].
pub(crate) fn take() -> BytesMut {
    POOL.with_borrow_mut(Pool::take).unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
}

/// Takes back a buffer, leaving one without memory in its place.
pub(crate) fn release(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        return;
    }
    let mut buffer = std::mem::take(buffer);
    buffer.clear();
    // Fails while slices of the memory are alive (a header value in an access log): they keep it, the pool does not.
    if buffer.try_reclaim(BUFFER_BYTES) && buffer.capacity() <= KEPT_MAX_BYTES {
        POOL.with_borrow_mut(|pool| pool.keep(buffer));
    }
}

impl Pool {
    fn take(&mut self) -> Option<BytesMut> {
        let buffer = self.buffers.pop()?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn keep(&mut self, buffer: BytesMut) {
        if self.bytes + buffer.capacity() <= POOL_MAX_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_buffer_is_used_again_unless_slices_of_it_live() {
        let mut buffer = take();
        buffer.extend_from_slice(b"head");
        let memory = buffer.as_ptr();
        release(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        let mut again = take();
        assert_eq!(again.as_ptr(), memory);
        again.extend_from_slice(b"kept");
        let slice = again.split().freeze();
        release(&mut again);
        let mut other = take();
        assert_ne!(other.as_ptr(), memory);
        assert_eq!(&slice[..], b"kept");
        release(&mut other);
    }
}
