//! The task against a scripted server.
