//! The one place that prints: data on stdout, everything else on stderr.
#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::{self, Write};

use crate::error::Error;

/// Says why the command ends.
pub(crate) fn error(error: &Error) {
    eprintln!("gangline: {error}");
}

/// Says something to the person at the terminal.
pub(crate) fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Writes a line of data; a reader that has gone away has read enough.
pub(crate) fn line(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes data as it is.
///
/// # Errors
///
/// What stdout answers; a reader that has gone away is none.
pub(crate) fn data(bytes: &[u8]) -> io::Result<()> {
    written(io::stdout().lock().write_all(bytes))
}

/// Writes what others have to say, as it is.
///
/// # Errors
///
/// What stderr answers; a reader that has gone away is none.
pub(crate) fn remark(bytes: &[u8]) -> io::Result<()> {
    written(io::stderr().lock().write_all(bytes))
}

fn written(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
