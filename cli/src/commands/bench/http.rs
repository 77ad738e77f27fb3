//! The life of items by way of the HTTP API.

use std::fmt::Write as _;

use gangline_worker::protocol::{
    ExchangeReply, ExchangeRequest, LeaseReply, LeaseRequest, LeasedItem, QueueName, Settle,
    SettleOutcome, WorkerName,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::wire::{Wire, lost};
use super::{Load, Times};
use crate::error::{Error, Kind};

/// Where the service is, and what it wants to be shown.
#[derive(Debug, Clone)]
pub(super) struct Address {
    host: String,
    token: Option<String>,
}

impl Address {
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, Error> {
        let host = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        match host.filter(|host| !host.is_empty() && !host.contains('/')) {
            Some(host) => Ok(Self {
                host: host.to_owned(),
                token,
            }),
            None => Err(Error::usage(format!(
                "--url: {url:?} is no address of the form http://HOST:PORT"
            ))),
        }
    }

    /// Returns host and port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Writes a request down.
    pub(super) fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        let written = match &self.token {
            Some(token) => write!(text, "authorization: Bearer {token}\r\n"),
            None => Ok(()),
        };
        let length = body.len();
        let head =
            format_args!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        written
            .and_then(|()| write!(text, "{head}{body}"))
            .expect("writing to a String cannot fail");
        text.into_bytes()
    }
}

/// Sends a request and returns its answer's body.
pub(super) async fn call<'a>(wire: &'a mut Wire, request: &[u8]) -> Result<&'a [u8], Error> {
    wire.write(request).await?;
    let status = wire.line().await?.to_owned();
    let mut length = 0;
    loop {
        let line = wire.line().await?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(lost)?;
        }
    }
    let body = wire.exactly(length).await?;
    if status.split(' ').nth(1) == Some("200") {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(body);
    Err(Error::new(Kind::Failed, format_args!("{status}: {text}")))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(lost)
}

/// Writes a push of a batch down.
pub(super) fn push(address: &Address, queue: &QueueName, batch: u32, bytes: usize) -> Vec<u8> {
    let item = format!("{{\"payload\":\"{}\"}}", "x".repeat(bytes - 2));
    let items = vec![item; batch as usize].join(",");
    let path = format!("/v1/queues/{queue}/items");
    address.request("POST", &path, &format!("{{\"items\":[{items}]}}"))
}

/// Removes a queue with all that is in it.
pub(super) async fn delete(address: &Address, queue: &QueueName) -> Result<(), Error> {
    let mut wire = Wire::open(&address.host).await?;
    let request = address.request("DELETE", &format!("/v1/queues/{queue}"), "");
    call(&mut wire, &request).await.map(drop)
}

/// A worker on a connection of its own.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) wire: Wire,
    address: Address,
    path: String,
    next: ExchangeRequest,
    number: u64,
}

impl Worker {
    pub(super) async fn start(
        address: &Address,
        queue: &QueueName,
        nth: u16,
    ) -> Result<Self, Error> {
        let name: WorkerName = format!("bench-{nth}").parse().map_err(Error::usage)?;
        Ok(Self {
            wire: Wire::open(&address.host).await?,
            address: address.clone(),
            path: format!("/v1/queues/{queue}/exchange"),
            next: ExchangeRequest::new(name),
            number: 0,
        })
    }

    /// Pushes, leases and settles until all rounds are done.
    pub(super) fn cycle(
        address: &Address,
        queue: &QueueName,
        nth: u16,
        load: Load,
    ) -> impl Future<Output = Result<Times, Error>> + Send + 'static {
        let (address, queue) = (address.clone(), queue.clone());
        async move {
            let mut worker = Self::start(&address, &queue, nth).await?;
            let push = push(&address, &queue, load.batch, load.payload_bytes);
            let mut times = Times::default();
            for _ in 0..load.rounds {
                let started = Instant::now();
                call(&mut worker.wire, &push).await?;
                let pushed = Instant::now();
                let items = worker.lease(load.batch, 0).await?;
                let leased = Instant::now();
                worker.settle(&items).await?;
                times.push.push(pushed - started);
                times.lease.push(leased - pushed);
                times.settle.push(leased.elapsed());
            }
            Ok(times)
        }
    }

    async fn exchange(&mut self) -> Result<ExchangeReply, Error> {
        let body = serde_json::to_string(&self.next).map_err(lost)?;
        let request = self.address.request("POST", &self.path, &body);
        let reply: ExchangeReply = parse(call(&mut self.wire, &request).await?)?;
        self.next.session = reply.session;
        self.next.uid = reply.uid;
        Ok(reply)
    }

    /// Leases a batch; others push as many as they lease, so that there always is one.
    pub(super) async fn lease(&mut self, max: u32, wait_ms: u64) -> Result<Vec<LeasedItem>, Error> {
        self.number += 1;
        self.next.settles.clear();
        self.next.lease = Some(LeaseRequest {
            number: self.number,
            max,
            starting: None,
            wait_ms,
        });
        match self.exchange().await?.lease {
            Some(LeaseReply::Items(items)) => Ok(items),
            other => Err(lost(format!("a lease was answered with {other:?}"))),
        }
    }

    pub(super) async fn settle(&mut self, items: &[LeasedItem]) -> Result<(), Error> {
        self.next.lease = None;
        self.next.settles.clear();
        self.next.settles.extend(items.iter().map(|item| Settle {
            id: item.id,
            lease: item.lease,
            outcome: SettleOutcome::Done,
            result: None,
            error: None,
            delay_ms: None,
            spawn: Vec::new(),
            stop: None,
        }));
        let settled = self.exchange().await?.settled.len();
        if settled == items.len() {
            return Ok(());
        }
        Err(lost(format!(
            "{settled} of {} settles were answered",
            items.len()
        )))
    }
}
