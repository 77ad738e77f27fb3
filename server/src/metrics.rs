//! Every series of the service, in one struct.
//!
//! What happens is counted where it happens, by handles that were made once; how many items are
//! where is read from the queues' own counts when somebody asks, so that the cost does not depend
//! on how long the queues are. Labels come from closed lists, but for queue names, which are
//! capped.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gangline_protocol::limits::METRICS_QUEUES_MAX;
use gangline_protocol::{Counts, QueueName, QueueStatus, SettleStatus};
use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::http::ROUTES;

/// All series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls, by the number of their route in [`ROUTES`].
    pub requests: Vec<RequestSeries>,
    /// Calls refused since their namespace sends too many.
    pub requests_refused: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// Connections refused since there are too many.
    pub connections_refused: Counter,
    /// What the store is asked.
    pub store: StoreSeries,
    /// What the log does.
    pub log: LogSeries,
    queues: Mutex<QueueSeries>,
}

/// Calls of one route.
#[derive(Debug)]
pub struct RequestSeries {
    by_class: [Counter; 5],
    took: Histogram,
}

/// What the store is asked.
#[derive(Debug)]
pub struct StoreSeries {
    /// How long pushes took.
    pub push: Histogram,
    /// How long exchanges took.
    pub exchange: Histogram,
    /// How long other commands took.
    pub command: Histogram,
    /// How long looks took.
    pub query: Histogram,
    /// Questions without an answer: the store was away or busy.
    pub failures: Counter,
    /// Items of a push.
    pub pushed_items: Histogram,
    /// Items that a lease handed out.
    pub leased_items: Histogram,
    /// Settles of an exchange.
    pub settles: Histogram,
    by_status: [Counter; 6],
}

/// What the log does.
#[derive(Debug)]
pub struct LogSeries {
    /// Bytes of a commit.
    pub commit_bytes: Histogram,
    /// How long syncs took.
    pub sync: Histogram,
    /// Snapshots that were written.
    pub snapshots: Counter,
}

/// The queues as they were when somebody last asked.
#[derive(Debug, Default)]
struct QueueSeries {
    items: Family<ItemLabels, Gauge>,
    sessions: Family<QueueLabels, Gauge>,
    retried: Family<QueueLabels, Gauge>,
    oldest_ready: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    queues: Family<PhaseLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    namespace: String,
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ItemLabels {
    namespace: String,
    queue: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettleLabels {
    status: &'static str,
}

/// From 50 µs to about 50 s, which is as long as calls are held.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 21))
}

/// From 1 to 1,024, which is the most that one call takes.
fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 11))
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl RequestSeries {
    /// Notes an answer.
    pub fn note(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.by_class[class].inc();
        self.took.observe(took.as_secs_f64());
    }
}

impl StoreSeries {
    /// Notes what became of a settle.
    pub fn note_settle(&self, status: SettleStatus) {
        self.by_status[place_of(status)].inc();
    }
}

fn place_of(status: SettleStatus) -> usize {
    match status {
        SettleStatus::Ok => 0,
        SettleStatus::AlreadySettled => 1,
        SettleStatus::StaleLease => 2,
        SettleStatus::Cancelled => 3,
        SettleStatus::UnknownItem => 4,
        SettleStatus::Over => 5,
    }
}

const SETTLE_STATUSES: [&str; 6] = [
    "ok",
    "already_settled",
    "stale_lease",
    "cancelled",
    "unknown_item",
    "over",
];

fn request_series(registry: &mut Registry) -> Vec<RequestSeries> {
    let requests = Family::<RequestLabels, Counter>::default();
    let took = Family::<RouteLabels, Histogram>::new_with_constructor(seconds as fn() -> _);
    registry.register("http_requests", "Calls answered", requests.clone());
    registry.register_with_unit(
        "http_request",
        "Time from a call's head to its answer's head; held calls take as long as they are held",
        Unit::Seconds,
        took.clone(),
    );
    let series = ROUTES.iter().map(|route| {
        let (method, route) = (route.method, route.path);
        let counter = |status| {
            let labels = RequestLabels {
                method,
                route,
                status,
            };
            requests.get_or_create_owned(&labels)
        };
        RequestSeries {
            by_class: CLASSES.map(counter),
            took: took.get_or_create_owned(&RouteLabels { method, route }),
        }
    });
    series.collect()
}

fn store_series(registry: &mut Registry) -> StoreSeries {
    let took = Family::<OperationLabels, Histogram>::new_with_constructor(seconds as fn() -> _);
    let of = |operation| took.get_or_create_owned(&OperationLabels { operation });
    let settles = Family::<SettleLabels, Counter>::default();
    let series = StoreSeries {
        push: of("push"),
        exchange: of("exchange"),
        command: of("command"),
        query: of("query"),
        failures: Counter::default(),
        pushed_items: sizes(),
        leased_items: sizes(),
        settles: sizes(),
        by_status: SETTLE_STATUSES
            .map(|status| settles.get_or_create_owned(&SettleLabels { status })),
    };
    registry.register_with_unit(
        "store_request",
        "Time that the store takes to answer, waiting included",
        Unit::Seconds,
        took,
    );
    let failures = series.failures.clone();
    registry.register(
        "store_failures",
        "Questions that the store did not answer: away or busy",
        failures,
    );
    registry.register("settles", "Settles, by what became of them", settles);
    for (name, help, sizes) in [
        ("push_items", "Items of a push", &series.pushed_items),
        (
            "lease_items",
            "Items that a lease handed out",
            &series.leased_items,
        ),
        (
            "exchange_settles",
            "Settles of an exchange that has some",
            &series.settles,
        ),
    ] {
        registry.register(name, help, sizes.clone());
    }
    series
}

fn log_series(registry: &mut Registry) -> LogSeries {
    let log = LogSeries {
        commit_bytes: Histogram::new(exponential_buckets(64.0, 4.0, 10)),
        sync: seconds(),
        snapshots: Counter::default(),
    };
    registry.register_with_unit(
        "log_commit",
        "Size of commits to the log",
        Unit::Bytes,
        log.commit_bytes.clone(),
    );
    registry.register_with_unit(
        "log_sync",
        "Time that syncs of the log take",
        Unit::Seconds,
        log.sync.clone(),
    );
    registry.register("log_snapshots", "Snapshots written", log.snapshots.clone());
    log
}

impl QueueSeries {
    fn register(&self, registry: &mut Registry) {
        registry.register("queue_items", "Items, by state", self.items.clone());
        registry.register("queue_sessions", "Open sessions", self.sessions.clone());
        registry.register(
            "queue_retried_attempts",
            "Failed attempts so far that did not end their item",
            self.retried.clone(),
        );
        registry.register_with_unit(
            "queue_oldest_ready_age",
            "Time since the oldest ready item was pushed, of queues that have one",
            Unit::Seconds,
            self.oldest_ready.clone(),
        );
        registry.register("queues", "Queues, by phase", self.queues.clone());
    }

    fn show(&self, statuses: &[QueueStatus], oldest_ready_ms: &HashMap<QueueName, u64>) {
        self.items.clear();
        self.sessions.clear();
        self.retried.clear();
        self.oldest_ready.clear();
        self.queues.clear();
        for (place, status) in statuses.iter().enumerate() {
            let phase = phase_label(status.phase);
            self.queues.get_or_create(&PhaseLabels { phase }).inc();
            let (namespace, queue) = if place < METRICS_QUEUES_MAX {
                (status.queue.namespace(), status.queue.name())
            } else {
                // No queue has such a name.
                ("_other", "_other")
            };
            let labels = QueueLabels {
                namespace: namespace.into(),
                queue: queue.into(),
            };
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.sessions
                .get_or_create(&labels)
                .inc_by(gauge(status.sessions));
            self.retried
                .get_or_create(&labels)
                .inc_by(gauge(status.retried));
            if let Some(age_ms) = oldest_ready_ms.get(&status.queue) {
                let oldest = self.oldest_ready.get_or_create(&labels);
                let age = Duration::from_millis(*age_ms).as_secs_f64();
                oldest.set(age.max(oldest.get()));
            }
            for (state, items) in states(&status.counts) {
                let labels = ItemLabels {
                    namespace: namespace.into(),
                    queue: queue.into(),
                    state,
                };
                self.items.get_or_create(&labels).inc_by(gauge(items));
            }
        }
    }
}

fn phase_label(phase: gangline_protocol::Phase) -> &'static str {
    use gangline_protocol::Phase;
    match phase {
        Phase::Open => "open",
        Phase::Sealed => "sealed",
        Phase::Drained => "drained",
        Phase::Stopped => "stopped",
    }
}

fn states(counts: &Counts) -> [(&'static str, u64); 7] {
    let Counts {
        ready,
        delayed,
        leased,
        done,
        dead,
        cancelled,
        abandoned,
    } = *counts;
    [
        ("ready", ready),
        ("delayed", delayed),
        ("leased", leased),
        ("done", done),
        ("dead", dead),
        ("cancelled", cancelled),
        ("abandoned", abandoned),
    ]
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("gangline");
        let requests = request_series(&mut registry);
        let store = store_series(&mut registry);
        let log = log_series(&mut registry);
        let queues = QueueSeries::default();
        queues.register(&mut registry);
        let (requests_refused, connections, connections_refused) =
            (Counter::default(), Gauge::default(), Counter::default());
        registry.register(
            "http_requests_refused",
            "Calls refused since their namespace sends too many",
            requests_refused.clone(),
        );
        registry.register("connections", "Open connections", connections.clone());
        registry.register(
            "connections_refused",
            "Connections refused since there are too many",
            connections_refused.clone(),
        );
        Self {
            registry,
            requests,
            requests_refused,
            connections,
            connections_refused,
            store,
            log,
            queues: Mutex::new(queues),
        }
    }
}

impl Metrics {
    /// Writes all series, with the queues as they are now, running ones first, and how old the
    /// oldest ready item is of those queues that have one.
    #[must_use]
    pub(crate) fn text(
        &self,
        mut statuses: Vec<QueueStatus>,
        oldest_ready_ms: &HashMap<QueueName, u64>,
    ) -> String {
        statuses.sort_by_key(|status| status.phase.is_over());
        // Who scrapes at the same time must not see them half cleared.
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.show(&statuses, oldest_ready_ms);
        let mut out = String::with_capacity(64 << 10);
        text::encode(&mut out, &self.registry).expect("a String takes all that is written to it");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settle_statuses_are_labelled_as_they_are_written() {
        for status in [
            SettleStatus::Ok,
            SettleStatus::AlreadySettled,
            SettleStatus::StaleLease,
            SettleStatus::Cancelled,
            SettleStatus::UnknownItem,
            SettleStatus::Over,
        ] {
            let label = SETTLE_STATUSES[place_of(status)];
            assert_eq!(serde_json::to_value(status).unwrap(), label);
        }
    }

    #[test]
    fn queues_beyond_the_cap_share_one_series() {
        let status = |number: usize| -> QueueStatus {
            let counts = serde_json::json!({"ready": 1, "delayed": 0, "leased": 0, "done": 0,
                "dead": 0, "cancelled": 0, "abandoned": 0});
            let settings = gangline_protocol::QueueSettings::default();
            serde_json::from_value(serde_json::json!({
                "queue": format!("q{number}"), "uid": "00000000-0000-0000-0000-000000000000", "phase": "open",
                "paused": false, "counts": counts, "retried": 0, "sessions": 0,
                "createdAt": "2026-01-01T00:00:00Z", "settings": settings,
            }))
            .unwrap()
        };
        let metrics = Metrics::default();
        let text = metrics.text(
            (0..METRICS_QUEUES_MAX + 3).map(status).collect(),
            &[
                (0, 1_500),
                (METRICS_QUEUES_MAX, 3),
                (METRICS_QUEUES_MAX + 1, 2),
            ]
            .map(|(number, age_ms)| (status(number).queue, age_ms))
            .into(),
        );
        let ready = text.lines().filter(|line| line.contains("state=\"ready\""));
        assert_eq!(ready.count(), METRICS_QUEUES_MAX + 1);
        let shared =
            "gangline_queue_items{namespace=\"_other\",queue=\"_other\",state=\"ready\"} 3";
        assert!(text.contains(shared), "{text}");
        for age in [
            "namespace=\"default\",queue=\"q0\"} 1.5",
            "queue=\"_other\"} 0.003",
        ] {
            let mut lines = text.lines();
            let is_age = |line: &str| line.contains("queue_oldest_ready_age_seconds{");
            assert!(
                lines.any(|line| is_age(line) && line.ends_with(age)),
                "{text}"
            );
        }
        assert!(
            text.contains("gangline_queues{phase=\"open\"} 203"),
            "{text}"
        );
    }
}
