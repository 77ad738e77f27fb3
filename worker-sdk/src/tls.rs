//! Whom a client trusts to be the service.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The certificates to trust for a service at a `https` address.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Roots<'a> {
    /// None: the address is a `http` one, and reading those of the system takes some time.
    Nobody,
    /// Those of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    System,
    /// Those of a file in PEM form, and no others.
    Pem(&'a [u8]),
}

/// Makes what connections are opened with. The error is a sentence.
pub(crate) fn config(roots: Roots<'_>) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Nobody => {}
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let (taken, _) = store.add_parsable_certificates(found.certs);
            if taken == 0 {
                let why = found.errors.first().map(|error| format!(": {error}"));
                let why = why.unwrap_or_default();
                return Err(format!(
                    "the system has no certificates of CAs to trust{why}"
                ));
            }
        }
        Roots::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added =
                    certificate
                        .map_err(|error| error.to_string())
                        .and_then(|certificate| {
                            store.add(certificate).map_err(|error| error.to_string())
                        });
                added.map_err(|error| format!("a certificate is not to be understood: {error}"))?;
            }
            if store.is_empty() {
                return Err("there is no certificate in PEM form".into());
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}
