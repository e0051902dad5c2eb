//! The interface over a real socket.
