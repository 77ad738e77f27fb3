//! Probes: what asks a container how it is, and when its answers count.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::environment::HOST_IP;

/// Longer status lines are no HTTP.
const STATUS_LINE_BYTES_MAX: usize = 1024;

/// How often a probe asks, and how many answers of a kind in a row count. Kubernetes' defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    failures: i32,
    successes: i32,
}

impl Timing {
    pub(super) fn of(probe: &Probe) -> Self {
        let seconds = |given: Option<i32>, default: u64| {
            let given = given.and_then(|given| u64::try_from(given).ok());
            Duration::from_secs(given.filter(|given| *given > 0).unwrap_or(default))
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
            successes: probe.success_threshold.unwrap_or(1).max(1),
        }
    }
}

/// The last answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    good: i32,
    bad: i32,
}

impl Tally {
    /// Takes an answer; says what is so by now, if it has been long enough.
    pub(super) fn note(&mut self, is_good: bool, timing: Timing) -> Option<bool> {
        if is_good {
            *self = Self {
                good: self.good.saturating_add(1),
                bad: 0,
            };
            (self.good >= timing.successes).then_some(true)
        } else {
            *self = Self {
                good: 0,
                bad: self.bad.saturating_add(1),
            };
            (self.bad >= timing.failures).then_some(false)
        }
    }
}

/// The number of a port that may be named.
pub(super) fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port),
    };
    let valid = number.and_then(|number| u16::try_from(number).ok());
    valid.ok_or_else(|| format!("there is no port {port:?}"))
}

/// Whether somebody listens.
pub(super) async fn tcp(host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let host = host.filter(|host| !host.is_empty()).unwrap_or(HOST_IP);
    let stream = TcpStream::connect((host, port)).await;
    stream.map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

/// Whether the answer to a GET is neither an error nor nonsense.
pub(super) async fn http(container: &Container, get: &HTTPGetAction) -> Result<(), String> {
    let port = port(container, &get.port)?;
    let stream = tcp(get.host.as_deref(), port).await?;
    let path = get
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = format!(
        "GET {slash}{path} HTTP/1.1\r\nUser-Agent: kube-probe\r\nAccept: */*\r\nConnection: close\r\n"
    );
    let headers = get.http_headers.iter().flatten();
    if !headers
        .clone()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("Host: {HOST_IP}:{port}\r\n"));
    }
    for header in headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("\r\n");
    let answer = async {
        let mut stream = BufReader::with_capacity(STATUS_LINE_BYTES_MAX, stream);
        stream.write_all(request.as_bytes()).await?;
        let line = stream.fill_buf().await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(line).into_owned())
    };
    let answer = answer
        .await
        .map_err(|error| format!("GET {path}: {error}"))?;
    let code = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.get(..3)?.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("GET {path}: the answer is no HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_once_there_are_enough_in_a_row() {
        let timing = Timing {
            successes: 2,
            ..Timing::of(&Probe::default())
        };
        let mut tally = Tally::default();
        let answers = [
            true, false, true, true, true, false, false, false, false, true,
        ];
        let counted: Vec<_> = answers
            .iter()
            .map(|good| tally.note(*good, timing))
            .collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            counted,
            [None, None, None, yes, yes, None, None, no, no, None]
        );
    }
}
