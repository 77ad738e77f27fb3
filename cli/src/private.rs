//! What is this user's alone: where state is kept, files that nobody else may read, tokens.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Returns where programs of this user keep their state: `$XDG_STATE_HOME`, or what stands for it
/// (XDG Base Directory Specification).
pub(crate) fn state_home() -> Result<PathBuf, Error> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Error::usage("neither HOME nor XDG_STATE_HOME is set").hint("--data-dir DIR")
        })
}

/// Makes a directory that others may not look into: items and results are in it.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Writes a file that only this user may read, whole or not at all.
pub(crate) fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&fresh)?.write_all(text.as_bytes())?;
    fs::rename(&fresh, path)
}

/// Returns a name or a token that nobody else has.
#[expect(
    clippy::disallowed_methods,
    reason = "runs name themselves and their tokens once, here"
)]
pub(crate) fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
