//! Waiting for several things at once, signals among them, in one thread.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A stream that can be read whenever the signal has come in. Unlike a signal mask, the program does not inherit it.
pub(super) fn signal_pipe(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    Ok(read)
}

pub(super) fn drain(pipe: &mut UnixStream) {
    let mut bytes = [0; 64];
    while pipe
        .read(&mut bytes)
        .is_ok_and(|count| count == bytes.len())
    {}
}

pub(super) fn wait<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    wait_for_some(fds.map(Some), timeout)
}

/// Waits until one of these can be read or is closed; says which.
pub(super) fn wait_for_some<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .flatten()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    let timeout = timeout.map_or(PollTimeout::NONE, |left| {
        // Rounded up, so that the loop does not turn without end within the last millisecond.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut results = polled.iter().map(|fd| fd.any().unwrap_or(false));
    Ok(fds.map(|fd| fd.is_some() && results.next().unwrap_or(false)))
}

#[expect(clippy::disallowed_methods, reason = "a grace period is real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}
