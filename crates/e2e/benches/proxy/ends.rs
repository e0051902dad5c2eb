//! Both ends of the measured traffic, as processes of their own so that they can be pinned: the backend, and generators
//! for what h2load does not do.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

static SMALL: [u8; 1 << 10] = [b'x'; 1 << 10];
static LARGE: [u8; 1 << 20] = [b'x'; 1 << 20];
/// A gRPC message of 100 bytes.
static MESSAGE: [u8; 105] = {
    let mut message = [b'x'; 105];
    let mut i = 0;
    while i < 4 {
        message[i] = 0;
        i += 1;
    }
    message[4] = 100;
    message
};

/// A gRPC request message, as h2load sends it.
pub(crate) fn grpc_message() -> &'static [u8] {
    &MESSAGE
}

type Content = BoxBody<Bytes, Infallible>;

/// Serves HTTP (1 KiB; 1 MiB at `/large`; gRPC at `/grpc`) and a TCP source of bytes; prints both ports.
pub(crate) fn backend() -> anyhow::Result<()> {
    let source = TcpListener::bind("127.0.0.1:0")?;
    let source_port = source.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in source.incoming().flatten() {
            std::thread::spawn(move || pour(stream));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{} {source_port}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(10_000);
                let _ended = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Content>, Infallible> {
    let path = request.uri().path().to_owned();
    // A body that is cut off is the client's affair.
    let _request_body = request.into_body().collect().await;
    Ok(match path.as_str() {
        "/large" => Response::new(Full::new(Bytes::from_static(&LARGE)).boxed()),
        path if path.starts_with("/grpc") => grpc(),
        _ => Response::new(Full::new(Bytes::from_static(&SMALL)).boxed()),
    })
}

fn grpc() -> Response<Content> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(&MESSAGE));
    let mut response = Response::new(body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn pour(mut stream: TcpStream) {
    while stream.write_all(&LARGE[..64 << 10]).is_ok() {}
}

/// Reads from `connections` connections for a while; prints the number of bytes.
pub(crate) fn sink(address: SocketAddr, time: Duration, connections: usize) -> anyhow::Result<()> {
    let total = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        let (mut stream, total) = (TcpStream::connect(address)?, Arc::clone(&total));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                total.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
    }
    std::thread::sleep(time);
    println!("{}", total.load(Ordering::Relaxed));
    Ok(())
}

/// One request per connection, `slots` at a time; prints the number of good answers.
pub(crate) fn churn(address: SocketAddr, time: Duration, slots: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let end = Instant::now() + time;
        let loops = (0..slots).map(|_| async move {
            let mut done = 0_u64;
            while Instant::now() < end {
                done += u64::from(one_connection(address).await.is_ok());
            }
            done
        });
        futures::future::join_all(loops).await.into_iter().sum::<u64>()
    });
    println!("{done}");
    Ok(())
}

async fn one_connection(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(2048);
    stream.read_to_end(&mut answer).await?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1024, "no good answer");
    Ok(())
}

/// A keep-alive connection that has served one request.
pub(crate) fn one_request(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let (mut buffer, mut got) = ([0; 4096], 0);
    while got < 1024 {
        let count = stream.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "the connection was closed");
        got += count;
    }
    Ok(stream)
}

/// The arguments `ADDRESS SECONDS COUNT` of a generator.
pub(crate) fn arguments(args: &[String]) -> anyhow::Result<(SocketAddr, Duration, usize)> {
    let [address, seconds, count] = args else { anyhow::bail!("ADDRESS SECONDS COUNT") };
    let time = Duration::from_secs_f64(seconds.parse().context("seconds")?);
    Ok((address.parse().context("address")?, time, count.parse().context("count")?))
}
