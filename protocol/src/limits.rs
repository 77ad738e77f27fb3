//! Every bound of the queue API, with its unit and its reason.

/// Longest payload or result, in bytes of JSON.
///
/// A queue moves work, not data: what is larger belongs in a store that the payload names.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Most items in one push, and lines in one durable step of a stream.
///
/// Keeps a step below a few milliseconds, so that one producer never stalls the others.
pub const PUSH_ITEMS_MAX: usize = 1_000;

/// Largest request body that is not a stream, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Most leases that one session holds at a time.
pub const SESSION_LEASES_MAX: usize = 1_024;

/// Bytes of payloads after which a lease has enough: it gives fewer items than were asked for, and
/// the next request the rest.
///
/// A thousand payloads of a mebibyte would be a gigabyte in the memory of service and worker.
pub const LEASE_BYTES_MAX: usize = 8 << 20;

/// Most settles in one exchange.
pub const SETTLES_MAX: usize = 1_024;

/// Most items that one settle may spawn.
pub const SPAWN_ITEMS_MAX: usize = 1_024;

/// Settles whose answers a session remembers, so that a repeat gets the same one.
///
/// Twice [`SESSION_LEASES_MAX`]: a client has at most one full set of settles without an answer.
pub const SETTLE_ANSWERS_MAX: usize = 2 * SESSION_LEASES_MAX;

/// Longest key of an item, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest worker name, in bytes: a Pod's uid, a dot, and a container name of 63.
pub const WORKER_NAME_BYTES_MAX: usize = 128;

/// Longest error text kept with an item, in bytes; longer texts are cut at the front.
pub const ERROR_BYTES_MAX: usize = 4_096;

/// Attempts that an item's history names; the oldest are left out.
///
/// More would not be read, and most queues give up far earlier.
pub const ATTEMPTS_KEPT_MAX: usize = 10;

/// Longest error of an attempt in an item's history, in bytes; longer texts are cut at the front.
///
/// The last error is kept in full beside it, within [`ERROR_BYTES_MAX`].
pub const ATTEMPT_ERROR_BYTES_MAX: usize = 512;

/// Items of a queue that are done or cancelled and whose history is kept; the oldest goes first.
///
/// A history takes up to 6.5 KiB, and what is settled for good should take next to nothing. Those of
/// items that are dead, or still to be done, are all kept.
pub const ATTEMPTS_SETTLED_MAX: usize = 1_000;

/// Longest text of a handler's progress, in bytes.
///
/// A line beside an item; it travels with heartbeats.
pub const PROGRESS_TEXT_BYTES_MAX: usize = 200;

/// Longest reason of a stop, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// How long an `Idempotency-Key` is remembered, in milliseconds: 24 hours.
pub const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Longest `traceparent`, in bytes (W3C Trace Context, version 00: 55).
pub const TRACEPARENT_BYTES_MAX: usize = 64;

/// Highest priority; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 9;

/// Priority of an item that names none.
pub const PRIORITY_DEFAULT: u8 = 5;

/// Highest `maxAttempts`.
pub const ATTEMPTS_MAX: u16 = 100;

/// Longest delay of an item, in milliseconds: 30 days.
pub const DELAY_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Longest time limit of an item, in milliseconds: 30 days.
pub const TIME_LIMIT_MS_MAX: u64 = DELAY_MS_MAX;

/// Longest time for which a call is held, in milliseconds.
///
/// Below the idle limits of common proxies (60 s).
pub const HOLD_MS_MAX: u64 = 50_000;

/// Shortest session length, in milliseconds.
pub const SESSION_MS_MIN: u64 = 1_000;

/// Longest session length, in milliseconds: an hour.
pub const SESSION_MS_MAX: u64 = 60 * 60 * 1_000;

/// How long a revoked worker name gets no new session, in milliseconds.
pub const REVOKED_MS: u64 = 60_000;

/// Names of workers that a queue remembers after their last session has ended; the oldest are
/// forgotten first.
///
/// Whoever starts workers asks within seconds of a worker's exit whether it ever had a session.
pub const WORKERS_REMEMBERED_MAX: usize = 8_192;

/// Most rows in one page of a list.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// Leased items that an explanation names.
///
/// More would not be read; how many more there are is said.
pub const EXPLAIN_LEASES_MAX: usize = 10;

/// Leased items among which an explanation looks for those held longest.
///
/// A look must not grow with the queue; more workers than this are rare.
pub const EXPLAIN_LEASES_LOOKED_MAX: usize = 2_048;

/// Dead items that are looked at for one answer to what they died of.
///
/// What comes after is counted, but in no group: an answer must not grow with the queue.
pub const DEAD_LOOKED_MAX: usize = 10_000;

/// Kinds of errors in that answer; the rarer ones are counted together.
pub const DEAD_GROUPS_MAX: usize = 100;

/// Dead items that one call to redrive looks at; the answer says where to go on.
///
/// Some seconds of work, in steps between which others have their turn.
pub const REDRIVE_LOOKED_MAX: usize = 100_000;

/// Dead items that one step of a redrive makes ready again.
pub const REDRIVE_STEP_MAX: usize = 500;

/// Dead items that one step of a redrive copies into another queue: a body's worth, at most.
pub const COPY_STEP_MAX: usize = 64;

/// Most queues in one service.
pub const QUEUES_MAX: usize = 10_000;

/// Deleted queues whose certificate is still known, so that late workers learn of the end.
pub const TOMBSTONES_MAX: usize = 1_024;

/// Most queues of one namespace, unless the service is told otherwise.
///
/// A tenth of [`QUEUES_MAX`], so that one namespace cannot take the place of all others.
pub const NAMESPACE_QUEUES_MAX: usize = 1_000;

/// Requests a second of one namespace, unless the service is told otherwise.
///
/// Holds for callers whose token is bound to the namespace. One worker that leases and settles in
/// batches sends about ten a second, so this is room for several hundred.
pub const NAMESPACE_REQUESTS_PER_SECOND: u32 = 5_000;

/// Requests of one namespace that are answered at the same time; held calls do not count.
///
/// Others of the namespace wait in line, so that a flood in it delays itself. Enough to fill a
/// commit of the store, little enough that the store is never far behind for everybody else.
pub const NAMESPACE_REQUESTS_MAX: usize = 256;

/// Requests of one namespace that may come at once, in milliseconds of its rate: at 5,000 a second
/// a hundred, and at least one.
///
/// More would take the processors of a small machine from everybody else for that long.
pub const NAMESPACE_BURST_MS: u64 = 20;

/// How long a request may wait for its turn in its namespace's rate, in milliseconds; one that
/// would wait for longer is kept as long and refused.
///
/// A client that ignores `Retry-After` and asks in a circle is slowed down by it.
pub const REFUSAL_DELAY_MS: u64 = 250;

/// Most open connections, unless the service is told otherwise; the next one is answered 503.
///
/// Each costs a file descriptor and some 20 KiB.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Most bytes of a request's head: request line and headers.
pub const HEAD_BYTES_MAX: usize = 32 << 10;

/// How long the head of a request may take to arrive, in milliseconds, counted from the opening of
/// the connection or from the reply before: also how long an idle connection is kept.
///
/// Longer than held calls ([`HOLD_MS_MAX`]) and than what common clients keep (60 s), so that it
/// is they who close idle connections.
pub const HEAD_READ_MS_MAX: u64 = 75_000;

/// How long a TLS handshake may take, in milliseconds: some round trips, on a bad day.
pub const TLS_HANDSHAKE_MS_MAX: u64 = 10_000;

/// How long a request body that is not a stream may take to arrive, in milliseconds.
pub const BODY_READ_MS_MAX: u64 = 60_000;

/// How long a stream may be silent, in milliseconds: an hour.
///
/// What is piped in may pause, but a peer that has gone without a word is noticed.
pub const STREAM_IDLE_MS_MAX: u64 = 60 * 60 * 1_000;

/// How long the receiver of a reply may take nothing of it, in milliseconds.
pub const WRITE_IDLE_MS_MAX: u64 = 60_000;

/// Most tokens of one service; those that have expired do not count.
///
/// The controller registers one a Job.
pub const TOKENS_MAX: usize = 10_000;

/// Longest note of a token, in bytes.
pub const TOKEN_NOTE_BYTES_MAX: usize = 256;

/// Longest life of a token that expires, in milliseconds: ten years.
pub const TOKEN_LIFE_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;

/// Queues that have series of their own in `/metrics`; those beyond it share one.
///
/// Each costs a dozen series in the monitoring system, for as long as that remembers.
pub const METRICS_QUEUES_MAX: usize = 200;

/// Most Pods in one report of a Job.
///
/// A screen shows fewer; the newest are what people look for.
pub const JOB_PODS_MAX: usize = 200;

/// Most conditions in one report of a Job.
pub const JOB_CONDITIONS_MAX: usize = 32;

/// Longest text in a report of a Job, in bytes.
pub const JOB_TEXT_BYTES_MAX: usize = 1_024;

/// Jobs whose reports are kept; the oldest report goes first.
///
/// A full report of 200 Pods is some 60 KiB, and most have a dozen.
pub const JOB_REPORTS_MAX: usize = 1_000;

/// Queues that have gone and are remembered for clients of `/v1/events` that come again; one that
/// has missed more is told everything anew.
pub const EVENTS_GONE_MAX: usize = 1_024;

/// Points of time in the history of one queue; as it grows, every second one is left out.
///
/// Enough for a smooth line on a screen.
pub const HISTORY_POINTS_MAX: usize = 240;
