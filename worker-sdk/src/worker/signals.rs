//! SIGTERM and SIGINT, and what they ask for.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::End;

/// The signals that tell a worker to go.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    pub(super) fn listen() -> Self {
        let listen = |kind| {
            signal(kind)
                .inspect_err(|error| tracing::warn!(%error, "cannot listen for a signal"))
                .ok()
        };
        Self {
            terminate: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
        }
    }

    /// Waits until one comes.
    pub(super) async fn told_to_go(&mut self) -> End {
        tokio::select! {
            () = next(&mut self.terminate) => End::Terminated,
            () = next(&mut self.interrupt) => End::Interrupted,
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    // Without a listener the default action holds, and there is nothing to wait for.
    std::future::pending::<()>().await;
}
