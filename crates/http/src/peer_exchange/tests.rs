use proptest::prelude::*;

use super::*;
use crate::tls::tests::pair;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What arrives behind the frame when the other side sends `pieces` and then ends.
async fn received(pieces: &[&[u8]]) -> (io::Result<Vec<u8>>, Rc<PeerFrame>) {
    let (mut sender, receiver) = pair(&[&rustls::version::TLS13]).await;
    let (exchange, told) = PeerExchange::begin(receiver, &frame(b"us").unwrap()).await.unwrap();
    let mut io = crate::Io::Exchange(Box::new(exchange));
    let send = async {
        for piece in pieces {
            sender.write_all(piece).await.unwrap();
            sender.flush().await.unwrap();
        }
        sender.shutdown().await.unwrap();
        // What breaks the stream on the other side breaks it here.
        let mut ours = Vec::new();
        let _broken = sender.read_to_end(&mut ours).await;
        ours
    };
    let receive = async {
        let mut bytes = Vec::new();
        let read = io.read_to_end(&mut bytes).await;
        drop(io);
        read.map(|_| bytes)
    };
    let (ours, read) = tokio::join!(send, receive);
    assert_eq!(ours, *frame(b"us").unwrap(), "our frame is sent once, before anything came");
    (read, told)
}

#[tokio::test]
async fn a_frame_is_taken_away_and_what_follows_stays() {
    let theirs = frame(b"them").unwrap();
    let (read, told) = received(&[&[&theirs[..], b"hello"].concat()]).await;
    assert_eq!((read.unwrap(), told.take()), (b"hello".to_vec(), Some(Bytes::from("them"))));
    assert_eq!(told.take(), None, "a body is taken once");
    let (read, told) = received(&[&theirs[..3], &theirs[3..9], &theirs[9..], b"he", b"llo"]).await;
    assert_eq!((read.unwrap(), told.take()), (b"hello".to_vec(), Some(Bytes::from("them"))));
}

#[tokio::test]
async fn whoever_sends_no_frame_is_read_as_ever() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"x", b"=#\x04", &MAGIC.to_be_bytes(), b"=#\x04g\0\0\0\x09part", b""]
    {
        let (read, told) = received(&[bytes]).await;
        assert_eq!(read.unwrap(), bytes);
        assert!(told.is_settled() && told.take().is_none());
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_breaks_the_connection() {
    let head = [MAGIC.to_be_bytes(), u32::try_from(MAX_BODY_BYTES + 1).unwrap().to_be_bytes()].concat();
    let (read, told) = received(&[&head]).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(told.is_settled());
    assert_eq!(frame(&vec![0; MAX_BODY_BYTES + 1]), None);
    let largest = vec![7; MAX_BODY_BYTES];
    let (read, told) = received(&[&frame(&largest).unwrap(), b"on"]).await;
    assert_eq!((read.unwrap(), told.take()), (b"on".to_vec(), Some(largest.into())));
}

/// Frames, damaged in one place or not at all.
fn beginnings() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    (body, proptest::collection::vec(any::<u8>(), 0..20), any::<Option<(u8, u8)>>()).prop_map(
        |(body, rest, damage)| {
            let mut bytes = [&frame(&body).unwrap()[..], &rest].concat();
            if let Some((place, value)) = damage {
                let place = usize::from(place) % bytes.len();
                bytes[place] = value;
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, in whatever pieces: it is a frame and what follows it, or it passes unchanged, or it breaks off.
    #[test]
    fn nothing_is_lost_or_made_up(bytes in beginnings(), cut in any::<prop::sample::Index>()) {
        let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
        let (read, told) = runtime().block_on(received(&[first, second]));
        prop_assert!(told.is_settled());
        match (read, told.take()) {
            (Ok(rest), Some(body)) => {
                prop_assert_eq!([&frame(&body).unwrap()[..], &rest].concat(), bytes);
            }
            (Ok(rest), None) => prop_assert_eq!(rest, bytes),
            (Err(error), body) => {
                prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                prop_assert!(body.is_none());
            }
        }
    }
}
