//! SIGINT and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Gives the exit code of each SIGINT and SIGTERM that comes.
pub(crate) fn interrupts() -> Result<UnboundedReceiver<u8>, Error> {
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            // 128 and the signal's number, as shells show it.
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if sender.send(code).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| Error::disk(format!("cannot listen for signals: {error}")))
}

/// Cancels `token` at the first SIGINT or SIGTERM.
pub(crate) fn cancel_on_signal(token: CancellationToken) -> Result<(), Error> {
    let mut interrupts = interrupts()?;
    tokio::spawn(async move {
        interrupts.recv().await;
        token.cancel();
    });
    Ok(())
}
