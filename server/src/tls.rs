//! TLS of the service: a certificate and its key from two files, read again when they change.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// How often the files are looked at.
const STEP: Duration = Duration::from_secs(1);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsTrouble {
    /// The file with the certificate is not to be used.
    #[error("{} {wrong}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
    /// The file with the key is not to be used.
    #[error("{} {wrong}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
    /// The library does not do what it is built for.
    #[error("TLS cannot be set up: {0}")]
    SetUp(#[from] rustls::Error),
}

/// What the files had in them when they were last used, or could not be.
type Seen = Option<(Vec<u8>, Vec<u8>)>;

/// The certificate in use.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    acceptor: Arc<ServerConfig>,
    seen: Seen,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Nothing in here panics halfway, so a poisoned certificate is still whole.
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

impl Tls {
    /// Reads the files.
    pub(crate) fn open(files: TlsConfig) -> Result<Self, TlsTrouble> {
        let provider = Arc::new(ring::default_provider());
        let seen = read(&files)?;
        let pair = certified(&files, &seen, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair))));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            files,
            provider,
            current,
            acceptor: Arc::new(config),
            seen: Some(seen),
        })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone().into()
    }

    /// Takes what the files have when they change, for ever. What cannot be used is left alone:
    /// the certificate before it goes on.
    pub(crate) async fn keep_up(mut self) {
        loop {
            tokio::time::sleep(STEP).await;
            // Files may be far away; the threads that answer calls do not wait for them.
            let looked = tokio::task::spawn_blocking(move || (self.look(), self)).await;
            let result = match looked {
                Ok((result, tls)) => {
                    self = tls;
                    result
                }
                Err(error) => {
                    tracing::error!(%error, "the certificate is not looked at any more");
                    return std::future::pending().await;
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the new certificate cannot be used; the old one goes on");
            }
        }
    }

    fn look(&mut self) -> Result<(), TlsTrouble> {
        let now = match read(&self.files) {
            Ok(now) => now,
            // Said once.
            Err(_) if self.seen.is_none() => return Ok(()),
            Err(error) => {
                self.seen = None;
                return Err(error);
            }
        };
        if self.seen.as_ref() == Some(&now) {
            return Ok(());
        }
        let pair = certified(&self.files, &now, &self.provider);
        self.seen = Some(now);
        let mut current = self
            .current
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(pair?);
        tracing::info!("the certificate was read again");
        Ok(())
    }
}

fn read(files: &TlsConfig) -> Result<(Vec<u8>, Vec<u8>), TlsTrouble> {
    let TlsConfig { cert, key } = files;
    let wrong = |error: io::Error| format!("cannot be read: {error}");
    let chain = std::fs::read(cert).map_err(|error| certificate_trouble(files, wrong(error)))?;
    let key = std::fs::read(key).map_err(|error| key_trouble(files, wrong(error)))?;
    Ok((chain, key))
}

fn certificate_trouble(files: &TlsConfig, wrong: String) -> TlsTrouble {
    let file = files.cert.clone();
    TlsTrouble::Certificate { file, wrong }
}

fn key_trouble(files: &TlsConfig, wrong: String) -> TlsTrouble {
    let file = files.key.clone();
    TlsTrouble::Key { file, wrong }
}

fn certified(
    files: &TlsConfig,
    (chain, key): &(Vec<u8>, Vec<u8>),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsTrouble> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = match chain {
        Ok(chain) if chain.is_empty() => Err("has no certificate in PEM form".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("is not to be understood: {error}")),
    };
    let chain = chain.map_err(|wrong| certificate_trouble(files, wrong))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        let wrong = match error {
            pem::Error::NoItemsFound => "has no private key in PEM form".to_owned(),
            error => format!("is not to be understood: {error}"),
        };
        key_trouble(files, wrong)
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let wrong = format!(
                "is not the key of the certificate in {}",
                files.cert.display()
            );
            key_trouble(files, wrong)
        }
        rustls::Error::InvalidCertificate(_) => {
            certificate_trouble(files, format!("is not to be understood: {error}"))
        }
        error => key_trouble(files, format!("is not to be used: {error}")),
    })
}
