use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn configs(versions: &[&'static rustls::SupportedProtocolVersion]) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connecting, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn client_session(config: Arc<ClientConfig>, name: &'static str) -> Session {
    let name = ServerName::try_from(name).unwrap();
    Session::Client(Box::new(UnbufferedClientConnection::new(config, name).unwrap()))
}

fn server_session(config: Arc<ServerConfig>) -> Session {
    Session::Server(Box::new(UnbufferedServerConnection::new(config).unwrap()))
}

/// Both ends after their handshake.
pub(crate) async fn pair(versions: &[&'static rustls::SupportedProtocolVersion]) -> (TlsStream, TlsStream) {
    let (server, client) = configs(versions);
    let (near, far) = tcp_pair().await;
    let mut client = TlsStream::new(near, client_session(client, "shop.example"), BytesMut::new());
    let mut server = TlsStream::new(far, server_session(server), BytesMut::new());
    let (asked, answered) = tokio::join!(client.handshake(), server.handshake());
    asked.unwrap();
    answered.unwrap();
    (client, server)
}

/// Reads until nothing more is there, as a connection does that waits.
async fn rest(stream: &mut TlsStream) {
    let waits = std::future::poll_fn(|cx| {
        let mut byte = [0; 1];
        let polled = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(polled.is_pending())
    });
    assert!(waits.await);
}

fn held(stream: &TlsStream) -> usize {
    stream.incoming.capacity() + stream.outgoing.capacity() + stream.plaintext.capacity()
}

#[tokio::test]
async fn bytes_pass_both_ways_whatever_the_sizes() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut client, mut server) = pair(&[version]).await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let write = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let read = async {
            let mut all = Vec::new();
            let mut piece = [0; 777];
            loop {
                match server.read(&mut piece).await.unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&piece[..count]),
                }
            }
        };
        let ((), received) = tokio::join!(write, read);
        assert!(received == sent);
        // The other direction is still open.
        server.write_all(b"thanks").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"thanks");
    }
}

#[tokio::test]
async fn a_connection_that_waits_holds_no_buffers() {
    let (mut client, mut server) = pair(&[&rustls::version::TLS13]).await;
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut read = [0; 4];
    server.read_exact(&mut read).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut read).await.unwrap();
    rest(&mut client).await;
    rest(&mut server).await;
    assert_eq!((held(&client), held(&server)), (0, 0));
}

#[tokio::test]
async fn plaintext_that_waits_makes_the_stream_readable() {
    let (mut client, mut server) = pair(&[&rustls::version::TLS13]).await;
    client.write_all(b"two halves").await.unwrap();
    client.flush().await.unwrap();
    let mut half = [0; 3];
    server.read_exact(&mut half).await.unwrap();
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(server.poll_readable(&mut context).is_ready());
    let mut other = [0; 7];
    server.read_exact(&mut other).await.unwrap();
    assert_eq!((&half[..], &other[..]), (&b"two"[..], &b" halves"[..]));
}

#[tokio::test]
async fn an_early_request_is_answered_behind_the_tickets() {
    let (server, client) = configs(&[&rustls::version::TLS13]);
    let (near, far) = tcp_pair().await;
    let mut client = TlsStream::new(near, client_session(client, "shop.example"), BytesMut::new());
    let mut server = TlsStream::new(far, server_session(server), BytesMut::new());
    let ask = async {
        client.handshake().await.unwrap();
        client.write_all(b"ask").await.unwrap();
        client.flush().await.unwrap();
    };
    let answer = async {
        // The request comes in one piece with the end of the handshake.
        server.handshake().await.unwrap();
        let mut read = [0; 3];
        server.read_exact(&mut read).await.unwrap();
        server.write_all(b"yes").await.unwrap();
        server.flush().await.unwrap();
    };
    tokio::join!(ask, answer);
    let mut read = [0; 3];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"yes");
}

#[tokio::test]
async fn pieces_of_a_vectored_write_share_a_record() {
    let (mut client, mut server) = pair(&[&rustls::version::TLS13]).await;
    let pieces = [io::IoSlice::new(b"head, "), io::IoSlice::new(b""), io::IoSlice::new(b"body")];
    let written = client.write_vectored(&pieces).await.unwrap();
    assert_eq!(written, 10);
    client.flush().await.unwrap();
    let mut room = [0; 64];
    assert_eq!(server.read(&mut room).await.unwrap(), 10);
    assert_eq!(&room[..10], b"head, body");
}

#[tokio::test]
async fn a_dropped_stream_says_goodbye() {
    const ALERT: u8 = 21;
    let (client, mut server) = pair(&[&rustls::version::TLS12]).await;
    drop(client);
    let mut record = [0; 64];
    let count = server.tcp.read(&mut record).await.unwrap();
    assert!(count > 0);
    assert_eq!(record[0], ALERT);
}

#[tokio::test]
async fn a_failed_handshake_tells_both_ends_why() {
    let (server, client) = configs(&[&rustls::version::TLS13]);
    let (near, far) = tcp_pair().await;
    let mut client = TlsStream::new(near, client_session(client, "other.example"), BytesMut::new());
    let mut server = TlsStream::new(far, server_session(server), BytesMut::new());
    let (asked, answered) = tokio::join!(client.handshake(), server.handshake());
    let reason = |error: io::Error| error.into_inner().unwrap().downcast::<rustls::Error>().unwrap();
    assert!(matches!(*reason(asked.unwrap_err()), rustls::Error::InvalidCertificate(_)));
    let alert = *reason(answered.unwrap_err());
    assert!(matches!(alert, rustls::Error::AlertReceived(_)), "{alert}");
}

#[tokio::test]
async fn a_cut_connection_ends_without_an_error() {
    let (client, mut server) = pair(&[&rustls::version::TLS13]).await;
    let raw = socket2::SockRef::from(client.tcp());
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn bytes_that_were_read_before_belong_to_the_handshake() {
    let (server, client) = configs(&[&rustls::version::TLS13]);
    let (near, mut far) = tcp_pair().await;
    let mut client = TlsStream::new(near, client_session(client, "shop.example"), BytesMut::new());
    let answer = async {
        let mut hello = BytesMut::new();
        far.read_buf(&mut hello).await.unwrap();
        let mut server = TlsStream::new(far, server_session(server), hello);
        server.handshake().await.unwrap();
        server
    };
    let (asked, server) = tokio::join!(client.handshake(), answer);
    asked.unwrap();
    assert!(!server.session().is_handshaking());
}

#[tokio::test]
async fn bytes_that_are_no_records_break_a_session_once() {
    let (server, client) = configs(&[&rustls::version::TLS13]);
    let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    for session in [client_session(client, "shop.example"), server_session(server)] {
        let (near, mut far) = tcp_pair().await;
        far.write_all(answer).await.unwrap();
        let mut stream = TlsStream::new(near, session, BytesMut::new());
        let error = stream.handshake().await.unwrap_err().into_inner().unwrap();
        assert!(matches!(*error.downcast().unwrap(), rustls::Error::InvalidMessage(_)));
        // What follows must not ask the session again.
        stream.write_all(b"x").await.unwrap_err();
        drop(stream);
    }
}

#[tokio::test]
async fn a_broken_session_fails_writes_and_ends() {
    let (mut client, server) = pair(&[&rustls::version::TLS13]).await;
    let raw = socket2::SockRef::from(server.tcp());
    raw.send(b"\x17\x03\x03\x00\x20it is no record of the right key").unwrap();
    client.read(&mut [0; 8]).await.unwrap_err();
    client.write_all(b"x").await.unwrap_err();
    drop(client);
}
