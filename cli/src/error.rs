//! What ends a command without success: a sentence, a hint, an exit code.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Kinds of failure, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command did its work, and some of it failed.
    Failed,
    /// It was called in a way that cannot work.
    Usage,
    /// The service cannot be reached (sysexits: `EX_UNAVAILABLE`).
    ServiceLost,
    /// A file or the disk is in the way (sysexits: `EX_IOERR`).
    Disk,
    /// The credentials are refused (sysexits: `EX_NOPERM`).
    Credentials,
}

/// A failure as the user sees it.
#[derive(Debug)]
pub(crate) struct Error {
    kind: Kind,
    text: String,
    hint: Option<String>,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl fmt::Display) -> Self {
        Self {
            kind,
            text: text.to_string(),
            hint: None,
        }
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, text)
    }

    pub(crate) fn disk(text: impl fmt::Display) -> Self {
        Self::new(Kind::Disk, text)
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Tells whether the service could not be reached any more.
    pub(crate) fn is_service_lost(&self) -> bool {
        self.kind == Kind::ServiceLost
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::ServiceLost => 69,
            Kind::Disk => 74,
            Kind::Credentials => 77,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Writes an error with its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<gangline_server::ServeError> for Error {
    fn from(error: gangline_server::ServeError) -> Self {
        use gangline_server::ServeError as E;
        use gangline_server::TlsTrouble;
        use gangline_server::store::redis::RedisTrouble;
        let text = chain(&error);
        match error {
            E::TokenNeeded(_) => Self::usage(text).hint("--token-file FILE, or GANGLINE_TOKEN"),
            E::Listen { address, .. } => Self::usage(text).hint(format!(
                "another program may have the port {}; --listen takes another, port 0 any free one",
                address.port()
            )),
            E::Tls(trouble) => {
                let flag = match trouble {
                    TlsTrouble::Certificate { .. } => "--tls-cert: ",
                    TlsTrouble::Key { .. } => "--tls-key: ",
                    TlsTrouble::SetUp(_) => "",
                };
                Self::usage(format!("{flag}{text}")).hint(
                    "--tls-cert FILE and --tls-key FILE: a certificate and its key, in PEM form",
                )
            }
            E::Open { source, .. } if source.kind() == ErrorKind::WouldBlock => Self::disk(text)
                .hint("wait until that process has ended, or take another --data-dir"),
            E::Open { .. } | E::Tokens(_) => Self::disk(text)
                .hint("--data-dir DIR names a directory that this user may write to"),
            E::Store(_) => Self::disk(text)
                .hint("make room on the disk and start again; what was acknowledged is kept"),
            E::Redis(RedisTrouble::Url(_)) => {
                Self::usage(text).hint("--redis redis://HOST:PORT, or rediss:// for TLS")
            }
            E::Redis(trouble) if trouble.is_unreachable() => Self::new(Kind::ServiceLost, text)
                .hint("is it running? redis-cli -u URL ping asks the same"),
            // What is said of anything else says what to do about it, too.
            E::Redis(_) => Self::new(Kind::ServiceLost, text),
        }
    }
}
