//! The one place that prints: data on stdout, everything else on stderr.

use std::io::{self, Write};

use crate::error::Error;

/// Says why the command ends.
pub(crate) fn error(error: &Error) {
    note(format_args!("gangline: {error}"));
}

/// Says something to the person at the terminal, if there is anybody.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a line of data; a reader that has gone away has read enough.
pub(crate) fn line(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Returns a value as a YAML document.
pub(crate) fn yaml(value: &impl serde::Serialize) -> Result<String, Error> {
    let text = serde_saphyr::to_string(value).map_err(Error::disk)?;
    Ok(if text.ends_with('\n') {
        text
    } else {
        text + "\n"
    })
}

/// Writes data as it is.
///
/// # Errors
///
/// What stdout answers; a reader that has gone away is none.
pub(crate) fn data(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
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
