//! What a container of a run's Pods writes, on its way out.

use futures::AsyncReadExt;
use gangline_controller::api::Pod;
use k8s_openapi::api::core::v1;
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::job::Logs;
use crate::output;

/// How much of a line is waited for before it is cut, where lines are kept whole.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The logs of one container, a start after the other.
pub(super) struct Log {
    pub(super) client: Client,
    pub(super) pods: Api<Pod>,
    pub(super) pod: String,
    pub(super) container: String,
    /// Its name stands before each line.
    pub(super) is_named: bool,
    /// Nobody else writes, so that the bytes can go out as they are.
    pub(super) is_alone: bool,
    pub(super) logs: Logs,
}

impl Log {
    /// Shows each start to its end.
    pub(super) async fn show_all(&self, mut starts: mpsc::UnboundedReceiver<i32>) {
        while let Some(restarts) = starts.recv().await {
            self.show(restarts).await;
        }
    }

    async fn show(&self, restarts: i32) {
        let why = match self.copy(restarts).await {
            Ok(true) => return,
            Ok(false) => {
                self.say_why_not_started().await;
                return;
            }
            // A Pod that is deleted takes its log along, and may not even have begun.
            Err(kube::Error::Api(_)) if self.is_leaving().await => return,
            Err(kube::Error::Api(_)) if self.say_why_not_started().await => return,
            Err(kube::Error::Api(status)) => status.message.clone(),
            Err(error) => error.to_string(),
        };
        let name = &self.pod;
        output::note(format_args!(
            "gangline: the log of {name} cannot be shown: {why}"
        ));
    }

    /// Returns whether there was anything to show.
    async fn copy(&self, restarts: i32) -> kube::Result<bool> {
        // By its number, which only the local cluster knows: a first restart comes at once.
        let path = format!(
            "{}/{}/log?follow=true&container={}&restartCount={restarts}",
            self.pods.resource_url(),
            self.pod,
            self.container,
        );
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(kube::Error::HttpError)?;
        let mut text = Box::pin(self.client.request_stream(request).await?);
        let mut lines = match (self.is_named, self.is_alone) {
            (true, _) => Lines::of(&self.container),
            (false, true) => Lines::raw(),
            (false, false) => Lines::whole(),
        };
        let mut chunk = vec![0; 1 << 14];
        let mut is_shown = false;
        loop {
            let count = text.read(&mut chunk).await;
            let count = count.map_err(kube::Error::ReadEvents)?;
            is_shown |= count > 0;
            let out = match count {
                0 => lines.end(),
                count => lines.take(&chunk[..count]),
            };
            let written = match self.logs {
                Logs::Stdout => output::data(&out),
                Logs::Stderr => output::remark(&out),
            };
            written.map_err(kube::Error::ReadEvents)?;
            if count == 0 {
                return Ok(is_shown);
            }
        }
    }

    /// Says why a container has no log, if it is because its program could not be started.
    async fn say_why_not_started(&self) -> bool {
        let why = self.not_started().await;
        if let Some(why) = &why {
            output::note(format_args!("gangline: {}: {why}", self.pod));
        }
        why.is_some()
    }

    async fn not_started(&self) -> Option<String> {
        let pods = Api::<v1::Pod>::namespaced(self.client.clone(), self.pods.namespace()?);
        let status = pods.get_opt(&self.pod).await.ok()??.status?;
        let lists = [status.init_container_statuses, status.container_statuses];
        let mut all = lists.into_iter().flatten().flatten();
        let own = all.find(|known| known.name == self.container)?;
        let end = own.state?.terminated?;
        let reason = end.reason.filter(|reason| reason == "StartError")?;
        Some(format!("{reason}: {}", end.message?))
    }

    async fn is_leaving(&self) -> bool {
        match self.pods.get_opt(&self.pod).await {
            Ok(pod) => pod.is_none_or(|pod| pod.is_deleting()),
            Err(_) => false,
        }
    }
}

/// Keeps lines whole and puts the name of their container before each, so that lines of several can be told apart.
struct Lines {
    /// Nothing where bytes are bytes.
    prefix: Option<String>,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl Lines {
    fn of(container: &str) -> Self {
        Self::with(Some(format!("[{container}] ")))
    }

    fn whole() -> Self {
        Self::with(Some(String::new()))
    }

    fn raw() -> Self {
        Self::with(None)
    }

    fn with(prefix: Option<String>) -> Self {
        let begun = Vec::new();
        Self { prefix, begun }
    }

    /// What can be written after these bytes have come.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(prefix) = &self.prefix else {
            return bytes.to_vec();
        };
        let mut out = Vec::with_capacity(bytes.len() + prefix.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun.len() >= LINE_BYTES_MAX {
                out.extend_from_slice(prefix.as_bytes());
                out.append(&mut self.begun);
                if !out.ends_with(b"\n") {
                    out.push(b'\n');
                }
            }
        }
        out
    }

    /// What is left at the end of the log.
    fn end(&mut self) -> Vec<u8> {
        if self.begun.is_empty() {
            return Vec::new();
        }
        self.take(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut lines: Lines, pieces: &[&str], expected: &str) {
        let mut out: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| lines.take(piece.as_bytes()))
            .collect();
        out.extend(lines.end());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn each_whole_line_has_the_name_of_its_container() {
        check(
            Lines::of("a"),
            &["on", "e\ntwo\n\nth", "ree"],
            "[a] one\n[a] two\n[a] \n[a] three\n",
        );
        check(Lines::of("a"), &[], "");
        let long = "x".repeat(LINE_BYTES_MAX);
        check(
            Lines::of("a"),
            &[&long, "y\n"],
            &format!("[a] {long}\n[a] y\n"),
        );
    }

    #[test]
    fn lines_of_several_pods_are_whole_and_bytes_of_one_are_as_they_are() {
        check(Lines::whole(), &["on", "e\ntwo"], "one\ntwo\n");
        check(Lines::whole(), &[], "");
        check(Lines::raw(), &["on", "e\ntwo"], "one\ntwo");
    }
}
