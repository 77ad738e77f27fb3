//! `gangline server` as a process of its own, started again whenever it ends.

use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::gangline::gangline;
use crate::redis::free_port;
use crate::server::TOKEN;

/// Before it is started again: without its Redis it ends at once.
const AGAIN: Duration = Duration::from_millis(50);

/// A supervised service; dropping it kills it.
#[derive(Debug)]
pub struct Replica {
    /// Where it listens, as in `http://127.0.0.1:1234`.
    pub url: String,
    /// Of the process that runs now; 0 for none.
    pid: Arc<AtomicU32>,
    /// Of the process that is started next.
    arguments: Arc<Mutex<Vec<String>>>,
    keeper: JoinHandle<()>,
}

impl Replica {
    /// Starts a service on a free port that it keeps, with more arguments.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let arguments = Arc::new(Mutex::new(all(&address, arguments)));
        let next = arguments.clone();
        let pid = Arc::new(AtomicU32::new(0));
        let current = pid.clone();
        let keeper = tokio::spawn(async move {
            loop {
                let words = next.lock().expect("no panic").clone();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let mut command = gangline(&words);
                command.env("GANGLINE_TOKEN", TOKEN);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().expect("the binary to start");
                current.store(child.id().unwrap_or(0), Ordering::SeqCst);
                let ended = child.wait().await;
                current.store(0, Ordering::SeqCst);
                ended.expect("an end");
                sleep(AGAIN).await;
            }
        });
        let url = format!("http://{address}");
        Self {
            url,
            pid,
            arguments,
            keeper,
        }
    }

    /// Has it end as on a rolling upgrade, and started again with other arguments.
    pub fn replace(&self, arguments: &[&str]) {
        let address = self.url.trim_start_matches("http://");
        *self.arguments.lock().expect("no panic") = all(address, arguments);
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal to its process, if there is one just now.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid.load(Ordering::SeqCst)).expect("a pid");
        if pid > 0 {
            // It may have ended a moment ago.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

fn all(address: &str, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["server", "--listen", address];
    all.extend(arguments);
    all.into_iter().map(str::to_owned).collect()
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Its child is killed with it.
        self.keeper.abort();
    }
}
