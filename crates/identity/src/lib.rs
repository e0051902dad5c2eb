//! Who a workload is, and how it proves it: SPIFFE ids, keys, certificates, trust bundles.
//!
//! Pure: time and randomness are parameters, nothing here opens a file or a socket.
