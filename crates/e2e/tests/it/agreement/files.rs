//! Files that the mesh's objects name: whatever the path, something of its kind is there.

use meltemi_compile::DataSources;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};

/// One certificate with its key, which has revoked nothing.
pub(super) struct Files {
    certificate: String,
    key: String,
    revocation_list: String,
}

impl Files {
    pub(super) fn new() -> Files {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let pem = key.serialize_pem();
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2036, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let revocation_list = list.signed_by(&Issuer::new(params, key)).expect("a list").pem().expect("PEM");
        Files { certificate, key: pem, revocation_list }
    }
}

impl DataSources for Files {
    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        let text = match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("key") => &self.key,
            Some("crl") => &self.revocation_list,
            _ => &self.certificate,
        };
        Ok(text.clone().into_bytes())
    }

    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
}
