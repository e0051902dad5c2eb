//! OCSP responses that a server staples to its certificate.
//!
//! Reads what decides whether one may be shown: for which certificate it is, and until when (RFC 6960, 4.2.1). Signatures
//! and the status in it are the client's matter, as in Envoy. Source: Envoy's `OcspResponseWrapper`.

use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::time::ASN1Time;

use crate::Error;

/// `id-pkix-ocsp-basic`, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// What a response says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OcspResponse<'d> {
    /// The serial number of its certificate, as it stands there.
    pub(crate) serial: &'d [u8],
    /// The second from which it is no longer good; without one it never is.
    pub(crate) next_update: Option<i64>,
}

impl OcspResponse<'_> {
    /// Reads it.
    ///
    /// # Errors
    /// If it is none, not a successful one, or for several certificates.
    pub(crate) fn from_der(der: &[u8]) -> Result<OcspResponse<'_>, Error> {
        read(der).unwrap_or_else(|| Err(Error::malformed("the OCSP response cannot be read")))
    }
}

/// `None` is no DER of a response.
fn read(der: &[u8]) -> Option<Result<OcspResponse<'_>, Error>> {
    let mut response = Der(der).inside(Tag::Sequence)?;
    if response.expect(Tag::Enumerated)? != [0] {
        return Some(Err(Error::malformed("OCSP response was unsuccessful")));
    }
    let Some(mut bytes) = response.explicit(0) else {
        return Some(Err(Error::malformed("OCSP response has no body")));
    };
    let mut bytes = bytes.inside(Tag::Sequence)?;
    if bytes.expect(Tag::Oid)? != BASIC {
        return Some(Err(Error::unsupported("only basic OCSP responses are supported")));
    }
    let mut data = Der(bytes.expect(Tag::OctetString)?).inside(Tag::Sequence)?.inside(Tag::Sequence)?;
    let _version = data.explicit(0);
    let _responder = data.next()?;
    let _produced = data.expect(Tag::GeneralizedTime)?;
    let mut all = data.inside(Tag::Sequence)?;
    let mut one = all.inside(Tag::Sequence)?;
    if !all.0.is_empty() {
        return Some(Err(Error::malformed("OCSP Response must be for one certificate only")));
    }
    let mut id = one.inside(Tag::Sequence)?;
    let (_algorithm, _name, _key) = (id.next()?, id.next()?, id.next()?);
    let serial = id.expect(Tag::Integer)?;
    let _status = one.next()?;
    let _this_update = one.expect(Tag::GeneralizedTime)?;
    let next_update = match one.explicit(0) {
        Some(time) => Some(ASN1Time::from_der(time.0).ok()?.1.timestamp()),
        None => None,
    };
    Some(Ok(OcspResponse { serial, next_update }))
}

/// Elements, one after the other.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    fn next(&mut self) -> Option<Any<'d>> {
        let (rest, element) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(element)
    }

    /// The content of the next, which must be of this type.
    fn expect(&mut self, tag: Tag) -> Option<&'d [u8]> {
        let element = self.next()?;
        (element.class() == Class::Universal && element.tag() == tag).then_some(element.data)
    }

    fn inside(&mut self, tag: Tag) -> Option<Der<'d>> {
        self.expect(tag).map(Der)
    }

    /// What is in `[number]`, if that comes next.
    fn explicit(&mut self, number: u32) -> Option<Der<'d>> {
        let (rest, element) = Any::from_der(self.0).ok()?;
        if element.class() != Class::ContextSpecific || element.tag() != Tag(number) {
            return None;
        }
        self.0 = rest;
        Some(Der(element.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = content.len();
        let head = if length < 128 { vec![tag, length as u8] } else { vec![tag, 0x81, length as u8] };
        [head, content].concat()
    }

    fn single(next_update: &[u8]) -> Vec<u8> {
        let id = tlv(0x30, &[&tlv(0x30, &[]), &tlv(4, &[b"n"]), &tlv(4, &[b"k"]), &tlv(2, &[&[0x10, 1]])]);
        tlv(0x30, &[&id, &tlv(0x80, &[]), &tlv(0x18, &[b"20260101000000Z"]), next_update])
    }

    fn response(status: u8, singles: &[&[u8]]) -> Vec<u8> {
        let data = tlv(
            0x30,
            &[&tlv(0xa2, &[]), &tlv(0x18, &[b"20260101000000Z"]), &tlv(0x30, &[&singles.concat()])],
        );
        let basic = tlv(0x30, &[&data]);
        let bytes = tlv(0xa0, &[&tlv(0x30, &[&tlv(6, &[BASIC]), &tlv(4, &[&basic])])]);
        tlv(0x30, &[&tlv(0x0a, &[&[status]]), &bytes])
    }

    #[test]
    fn a_response_says_for_which_certificate_it_is_and_until_when() {
        let until = tlv(0xa0, &[&tlv(0x18, &[b"20260102000000Z"])]);
        let whole = response(0, &[&single(&until)]);
        let read = OcspResponse::from_der(&whole).unwrap();
        assert_eq!(read, OcspResponse { serial: &[0x10, 1], next_update: Some(1_767_312_000) });
        let endless = response(0, &[&single(&[])]);
        assert_eq!(OcspResponse::from_der(&endless).unwrap().next_update, None);
        for cut in 0..whole.len() {
            assert!(OcspResponse::from_der(&whole[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_cannot_be_stapled_is_told() {
        let reason = |der: &[u8]| OcspResponse::from_der(der).unwrap_err().to_string();
        assert!(reason(&response(1, &[&single(&[])])).contains("unsuccessful"));
        assert!(reason(&tlv(0x30, &[&tlv(0x0a, &[&[0]])])).contains("no body"));
        assert!(reason(&response(0, &[&single(&[]), &single(&[])])).contains("one certificate only"));
        assert!(reason(b"no DER").contains("cannot be read"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            damage in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 1..8),
        ) {
            let mut der = response(0, &[&single(&[])]);
            for (index, byte) in damage {
                let at = index.index(der.len());
                der[at] = byte;
            }
            let _read = OcspResponse::from_der(&der);
        }
    }
}
