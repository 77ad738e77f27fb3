//! A `gangline up` in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::gangline::gangline;

/// A `gangline up`, and the variables that it prints.
#[derive(Debug)]
pub struct Up {
    child: Child,
    exports: Vec<(String, String)>,
    dir: PathBuf,
}

impl Up {
    /// Starts it, and waits until it says that it is there.
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[]).await
    }

    /// Starts it with more arguments.
    pub async fn start_with(dir: &Path, more: &[&str]) -> Self {
        let data_dir = dir.to_str().expect("a path in UTF-8");
        let mut arguments = vec![
            "up",
            "--listen=127.0.0.1:0",
            "--cluster-listen=127.0.0.1:0",
            "--data-dir",
            data_dir,
        ];
        arguments.extend(more);
        let mut command = gangline(&arguments);
        let mut child = command.stderr(Stdio::null()).spawn().expect("to start");
        let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let mut exports = Vec::new();
        while exports.len() < 3 {
            let line = lines.next_line().await.expect("text");
            let line = line.expect("three exports");
            let export = line.strip_prefix("export ").and_then(|l| l.split_once('='));
            let (name, value) = export.expect("an export");
            exports.push((name.to_owned(), value.to_owned()));
        }
        Self {
            child,
            exports,
            dir: dir.to_owned(),
        }
    }

    /// What it prints for others to set.
    #[must_use]
    pub fn exports(&self) -> &[(String, String)] {
        &self.exports
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let id = self.child.id().expect("to run");
        i32::try_from(id).expect("a pid")
    }

    /// Where the kubelet keeps the state of Pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }

    /// A client of the cluster's API.
    pub async fn client(&self) -> kube::Client {
        let file = Kubeconfig::read_from(self.dir.join("kubeconfig")).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await;
        config
            .map_err(kube::Error::InferKubeconfig)
            .and_then(kube::Client::try_from)
            .expect("a client")
    }

    /// Kills it as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("to be there");
    }

    /// Stops it as a person would.
    pub async fn stop(mut self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("to be there");
        assert!(self.child.wait().await.expect("an end").success());
    }
}
