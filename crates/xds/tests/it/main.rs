//! Both ends of the protocol against each other: scripted transcripts, the law that delta equals state of the
//! world, and the gRPC shells over a loopback socket.

mod law;
mod loopback;
mod transcript;
mod world;
