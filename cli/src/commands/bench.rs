//! `gangline bench`: figures of a live service, beside a bare script on Redis if wanted.
//!
//! The client is as thin as it can be, for both: on one machine it takes its time from the
//! service that it measures.

mod http;
mod latency;
mod redis;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures::future::try_join_all;
use gangline_server::{Config, LimitsConfig, Server, StoreConfig};
use gangline_worker::protocol::QueueName;
use gangline_worker::protocol::limits::{PAYLOAD_BYTES_MAX, PUSH_ITEMS_MAX};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::examples;
use super::server::TokenArgs;
use crate::error::{Error, Kind};
use crate::output;

/// Arguments of `gangline bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::BENCH)]
pub(crate) struct Args {
    /// Address of the queue service; without it one is started here, on a directory of its own
    #[arg(long, env = "GANGLINE_URL")]
    url: Option<String>,
    #[command(flatten)]
    token: TokenArgs,
    /// Measure the same life cycle by one script a step on the Redis at this address
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["url", "latency", "data_dir"])]
    redis: Option<String>,
    /// Measure the time from a push to the answer of a waiting worker
    #[arg(long)]
    latency: bool,
    /// Items that go through their life, or pushes with --latency
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    items: u64,
    /// Items in one call
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=PUSH_ITEMS_MAX as i64), value_name = "N")]
    batch: u32,
    /// Connections, each with a call at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    connections: u16,
    /// Size of an item's payload
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(2..=PAYLOAD_BYTES_MAX as i64))]
    payload_bytes: u32,
    /// Where the service that is started here keeps its queue; the temporary directory when absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// How much work there is.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Rounds of each connection: push a batch, lease it, settle it.
    rounds: u64,
    batch: u32,
    payload_bytes: usize,
}

/// How long each call of one kind took.
#[derive(Debug, Default)]
struct Times {
    push: Vec<Duration>,
    lease: Vec<Duration>,
    settle: Vec<Duration>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let load = Load {
        rounds: args
            .items
            .div_ceil(u64::from(args.batch) * u64::from(args.connections)),
        batch: args.batch,
        payload_bytes: args.payload_bytes as usize,
    };
    if let Some(address) = &args.redis {
        let started = Instant::now();
        let peers = (0..args.connections).map(|_| redis::Peer::cycle(address, load));
        report(load, started, all(peers).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let service = match args.url {
        Some(url) => Service::Elsewhere(url),
        None => Service::start(args.data_dir).await?,
    };
    let address = http::Address::new(service.url(), args.token.token()?)?;
    let queue = queue_name()?;
    if args.latency {
        let times = latency::measure(&address, &queue, args.items, load.payload_bytes).await;
        output::line(format_args!("held lease   {}", quantiles(times?)));
    } else {
        let started = Instant::now();
        let workers = (0..args.connections).map(|n| http::Worker::cycle(&address, &queue, n, load));
        report(load, started, all(workers).await?);
    }
    http::delete(&address, &queue).await?;
    service.stop();
    Ok(ExitCode::SUCCESS)
}

/// Runs each connection as a task of its own, so that they share the cores.
async fn all<F>(connections: impl Iterator<Item = F>) -> Result<Vec<Times>, Error>
where
    F: Future<Output = Result<Times, Error>> + Send + 'static,
{
    let tasks = connections.map(|connection| async {
        let task = tokio::spawn(connection);
        task.await.map_err(Error::disk)?
    });
    try_join_all(tasks).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "each measurement takes a queue that nobody else has"
)]
fn queue_name() -> Result<QueueName, Error> {
    let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
    name.parse().map_err(Error::usage)
}

fn report(load: Load, started: Instant, times: Vec<Times>) {
    let took = started.elapsed();
    let calls = times.len() as u64 * load.rounds;
    let items = calls * u64::from(load.batch);
    let per_second = items as f64 / took.as_secs_f64();
    output::line(format_args!("{per_second:.0} items/s"));
    let (mut push, mut lease, mut settle) = (Vec::new(), Vec::new(), Vec::new());
    for mut times in times {
        push.append(&mut times.push);
        lease.append(&mut times.lease);
        settle.append(&mut times.settle);
    }
    for (call, times) in [("push", push), ("lease", lease), ("settle", settle)] {
        output::line(format_args!("{call:<12} {}", quantiles(times)));
    }
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        let time = times.get(index.min(times.len().saturating_sub(1)));
        time.map_or(0, Duration::as_micros)
    };
    format!("p50 {} µs   p99 {} µs", at(0.5), at(0.99))
}

/// The service that is measured.
enum Service {
    Elsewhere(String),
    Here {
        url: String,
        shutdown: CancellationToken,
        thread: std::thread::JoinHandle<()>,
        dir: Option<PathBuf>,
    },
}

impl Service {
    /// Starts a service on threads of its own.
    async fn start(data_dir: Option<PathBuf>) -> Result<Self, Error> {
        let own = data_dir.is_none().then(|| {
            let name = format!("gangline-bench-{}", std::process::id());
            std::env::temp_dir().join(name)
        });
        let dir = data_dir.or_else(|| own.clone()).unwrap_or_default();
        let shutdown = CancellationToken::new();
        let (tell, bound) = tokio::sync::oneshot::channel();
        let (runtime, stop) = (super::runtime()?, shutdown.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let server = Server::bind(Config {
                    listen: ([127, 0, 0, 1], 0).into(),
                    token: None,
                    store: StoreConfig::Embedded { data_dir: dir },
                    limits: LimitsConfig::default(),
                    tls: None,
                });
                let server = match server.await {
                    Ok(server) => server,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                if tell.send(Ok(server.address())).is_ok()
                    && let Err(error) = server.run(stop).await
                {
                    output::note(format_args!("gangline: {error}"));
                }
            });
        });
        let gone = |_| Error::new(Kind::ServiceLost, "the queue service did not start");
        let address = bound.await.map_err(gone)??;
        Ok(Self::Here {
            url: format!("http://{address}"),
            shutdown,
            thread,
            dir: own,
        })
    }

    fn url(&self) -> &str {
        match self {
            Self::Elsewhere(url) | Self::Here { url, .. } => url,
        }
    }

    fn stop(self) {
        let Self::Here {
            url: _,
            shutdown,
            thread,
            dir,
        } = self
        else {
            return;
        };
        shutdown.cancel();
        // What it had to say it has said.
        let _ = thread.join();
        if let Some(dir) = dir {
            // What stays behind is only disk space.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let times = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(quantiles(times), "p50 51 µs   p99 100 µs");
        assert_eq!(quantiles(Vec::new()), "p50 0 µs   p99 0 µs");
    }
}
