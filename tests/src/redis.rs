//! A Redis of a test's own: a child process on a free port, in a directory that goes with it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a Redis may take until it answers.
const START: Duration = Duration::from_secs(30);

/// How often it is asked.
const STEP: Duration = Duration::from_millis(5);

/// How often it is asked whether it says what is waited for.
pub(crate) const ASK: Duration = Duration::from_millis(20);

/// Returns what is started as a Redis: `redis-server`, or what `GANGLINE_TEST_REDIS` names.
fn program() -> PathBuf {
    let named = std::env::var_os("GANGLINE_TEST_REDIS");
    named.map_or_else(|| "redis-server".into(), PathBuf::from)
}

/// A running Redis; dropping it kills it.
#[derive(Debug)]
pub struct TestRedis {
    /// Where it listens, as in `redis://127.0.0.1:1234`.
    pub url: String,
    port: u16,
    program: PathBuf,
    extra: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

/// How Redis keeps what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// In memory only.
    Memory,
    /// In its log, with a sync before each reply.
    Always,
}

impl TestRedis {
    /// Tells whether there is a `redis-server` to start, and says so if a test must be skipped.
    #[expect(
        clippy::print_stderr,
        reason = "who runs the suite must see what did not run"
    )]
    #[must_use]
    pub fn is_installed() -> bool {
        let mut command = Command::new(program());
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let is_installed = command.status().is_ok_and(|status| status.success());
        if !is_installed {
            eprintln!("SKIPPED: no redis-server here; `apt-get install redis-server` brings it");
        }
        is_installed
    }

    /// Starts a Redis on an empty directory.
    #[must_use]
    pub fn start(keeping: Keeping) -> Self {
        Self::start_with(keeping, &[])
    }

    /// Starts a Redis with more settings, as on its command line.
    #[must_use]
    pub fn start_with(keeping: Keeping, extra: &[&str]) -> Self {
        Self::start_program(program(), keeping, extra)
    }

    /// Starts a Redis whose synced log lies in memory, where the system has a place for that: for
    /// thousands of steps, each of which would wait for the disk.
    #[must_use]
    pub fn start_synced_in_memory(extra: &[&str]) -> Self {
        let mut all = vec!["--auto-aof-rewrite-min-size", "8mb"];
        all.extend(extra);
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::start_program_in(dir, program(), Keeping::Always, &all)
    }

    /// Starts the Redis 8 that `tests/run` fetches, with a log that is synced every second; says
    /// so if there is none.
    #[must_use]
    pub fn start_newer() -> Option<Self> {
        let log = ["--appendonly", "yes", "--appendfsync", "everysec"];
        Self::start_fetched("redis-8/redis-server", Keeping::Memory, &log)
    }

    /// Starts the Valkey that `tests/run` fetches; says so if there is none.
    #[must_use]
    pub fn start_valkey() -> Option<Self> {
        Self::start_fetched("valkey/valkey-server", Keeping::Always, &[])
    }

    /// Starts a program that `tests/run redis` puts into `target/`.
    #[expect(
        clippy::print_stderr,
        reason = "who runs the suite must see what did not run"
    )]
    fn start_fetched(program: &str, keeping: Keeping, extra: &[&str]) -> Option<Self> {
        let test = std::env::current_exe().expect("the test's own path");
        let target = test.ancestors().nth(3).expect("target/PROFILE/deps/test");
        let path = target.join(program);
        if !path.exists() {
            eprintln!("SKIPPED: no target/{program} here; `tests/run redis` fetches it with pip");
            return None;
        }
        Some(Self::start_program(path, keeping, extra))
    }

    fn start_program(program: PathBuf, keeping: Keeping, extra: &[&str]) -> Self {
        Self::start_program_in(tempfile::tempdir(), program, keeping, extra)
    }

    fn start_program_in(
        dir: std::io::Result<TempDir>,
        program: PathBuf,
        keeping: Keeping,
        extra: &[&str],
    ) -> Self {
        let port = free_port();
        let keep: &[&str] = match keeping {
            Keeping::Memory => &["--appendonly", "no"],
            Keeping::Always => &["--appendonly", "yes", "--appendfsync", "always"],
        };
        let mut redis = Self {
            url: format!("redis://127.0.0.1:{port}"),
            port,
            program,
            extra: keep
                .iter()
                .chain(extra)
                .map(|&word| word.to_owned())
                .collect(),
            dir: dir.expect("a directory"),
            child: None,
        };
        redis.restart();
        redis
    }

    /// Starts a Sentinel on a file that says what it watches.
    #[must_use]
    pub fn start_sentinel(config: &Path) -> Self {
        let port = free_port();
        let mut sentinel = Self {
            url: format!("redis://127.0.0.1:{port}"),
            port,
            program: program(),
            extra: Vec::new(),
            dir: tempfile::tempdir().expect("a directory"),
            child: None,
        };
        let mut command = Command::new(program());
        command
            .arg(config)
            .args(["--sentinel", "--bind", "127.0.0.1", "--port"])
            .arg(port.to_string());
        sentinel.run(&mut command);
        sentinel
    }

    /// Starts it again on what it has kept.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(&self.program);
        command
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                // A replica need not wait for others that might come.
                "--repl-diskless-sync-delay",
                "0",
                "--port",
                &self.port.to_string(),
            ])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.extra);
        self.run(&mut command);
    }

    /// Starts it again, empty, as a replica of another, and waits until it has what that one has.
    pub fn restart_as_replica_of(&mut self, primary: &Self) {
        self.kill();
        let port = primary.port.to_string();
        self.extra = ["--appendonly", "no", "--replicaof", "127.0.0.1", &port]
            .map(str::to_owned)
            .into();
        self.restart();
        self.until_it_says(&["INFO", "replication"], "master_link_status:up");
    }

    /// Asks until the answer has this in it.
    pub fn until_it_says(&self, command: &[&str], expected: &str) {
        let mut answer = String::new();
        for _ in 0..START.as_millis() / ASK.as_millis() {
            answer = self.ask(command);
            if answer.contains(expected) {
                return;
            }
            std::thread::sleep(ASK);
        }
        panic!("no {expected:?}: {answer}");
    }

    fn run(&mut self, command: &mut Command) {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server to start"));
        for _ in 0..START.as_millis() / STEP.as_millis() {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return;
            }
            std::thread::sleep(STEP);
        }
        panic!("redis-server does not answer on port {}", self.port);
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("to be killed");
            child.wait().expect("its end");
        }
    }

    /// Sends it a signal: SIGSTOP lets it stand still, SIGCONT lets it go on.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("to run");
        let pid = i32::try_from(pid).expect("a pid");
        nix::sys::signal::kill(Pid::from_raw(pid), signal).expect("to be there");
    }

    /// Sends a command to its first database and returns the answer as text.
    #[must_use]
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &port])
            .args(command)
            .output()
            .expect("redis-cli to run");
        assert!(output.status.success(), "redis-cli {command:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Returns its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Returns the port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of its log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a port on loopback on which nobody listens just now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
