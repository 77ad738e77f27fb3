//! One table of all routes: who may call them, and what the API's description says of them.
//!
//! A call that is not in here is refused, whatever the router says.

use gangline_protocol::Role;

/// What a call does, as far as roles care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing but the process is seen: no token is asked for.
    Open,
    /// Sees how far a queue is.
    Status,
    /// Sees items, results and workers.
    Look,
    /// Sees all queues of its scope.
    LookAround,
    /// Adds items, takes them back, seals.
    Produce,
    /// Leases and settles.
    Work,
    /// Decides over a queue and its workers.
    Operate,
    /// Makes and revokes tokens.
    Grant,
    /// Sees the whole service.
    Measure,
}

impl Need {
    /// Tells whether a role may do it.
    #[must_use]
    pub fn allows(self, role: Role) -> bool {
        match (self, role) {
            (Self::Open | Self::Status, _) | (_, Role::Admin) => true,
            (Self::Look | Self::LookAround | Self::Measure, Role::Observer)
            | (Self::Produce, Role::Producer)
            | (Self::Work, Role::Worker) => true,
            (Self::Look | Self::LookAround | Self::Measure, Role::Producer | Role::Worker)
            | (Self::Produce, Role::Worker | Role::Observer)
            | (Self::Work, Role::Producer | Role::Observer)
            | (Self::Operate | Self::Grant, Role::Producer | Role::Worker | Role::Observer) => {
                false
            }
        }
    }

    /// Returns the roles that may do it, for people.
    pub(crate) fn roles(self) -> String {
        let roles = Role::ALL.into_iter().filter(|role| self.allows(*role));
        let names: Vec<&str> = roles.map(Role::as_str).collect();
        names.join(", ")
    }
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    /// None.
    Nothing,
    /// JSON of this schema.
    Json(&'static str),
    /// JSON of this schema, or none.
    JsonOrNothing(&'static str),
    /// An item, a batch, or a stream of items.
    Items,
}

/// What the body of a successful reply is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gives {
    /// JSON of this schema.
    Json(&'static str),
    /// Something of this media type.
    Text(&'static str),
}

/// A parameter of the query: name, schema, and what it means.
pub(crate) type Parameter = (&'static str, &'static str, &'static str);

/// One call of the API.
#[derive(Debug)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with `{queue}` and the like for what varies.
    pub path: &'static str,
    /// What the caller must be allowed to do.
    pub need: Need,
    pub(crate) summary: &'static str,
    pub(crate) query: &'static [Parameter],
    pub(crate) takes: Takes,
    pub(crate) gives: Gives,
}

impl Route {
    /// Tells whether the path names a queue.
    pub(crate) fn is_in_queue(&self) -> bool {
        self.path.starts_with("/v1/queues/{queue}")
    }
}

const fn route(
    method: &'static str,
    path: &'static str,
    need: Need,
    summary: &'static str,
    takes: Takes,
    gives: Gives,
) -> Route {
    Route {
        method,
        path,
        need,
        summary,
        query: &[],
        takes,
        gives,
    }
}

const fn with(query: &'static [Parameter], route: Route) -> Route {
    Route { query, ..route }
}

use Gives::Text;
use Need::{Grant, Look, LookAround, Measure, Open, Operate, Produce, Status, Work};
use Takes::{Items, JsonOrNothing, Nothing};

const STATUS: Gives = Gives::Json("QueueStatus");
const EXCHANGE: Takes = Takes::Json("ExchangeRequest");
const EXCHANGED: Gives = Gives::Json("ExchangeReply");
const COUNT: &str = r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#;
const FLAG: &str = r#"{"type":"boolean"}"#;

/// All calls of the API, by path. The page for people is not among them.
pub static ROUTES: [Route; 37] = [
    route(
        "GET",
        "/healthz",
        Open,
        "The process is alive",
        Nothing,
        Text("text/plain"),
    ),
    route(
        "GET",
        "/readyz",
        Open,
        "The store can serve",
        Nothing,
        Text("text/plain"),
    ),
    route(
        "GET",
        "/openapi.json",
        Open,
        "This description",
        Nothing,
        Text("application/json"),
    ),
    route(
        "GET",
        "/metrics",
        Measure,
        "Series for Prometheus; needs a token for all namespaces",
        Nothing,
        Text("application/openmetrics-text"),
    ),
    with(
        &[(
            "queue",
            r##"{"$ref":"#/components/schemas/QueueName"}"##,
            "Only this queue",
        )],
        route(
            "GET",
            "/v1/events",
            LookAround,
            "Server-sent events: `queues` with all of them, then `changed` with those that have changed and the names of those that have gone; a client that comes again gets what it has missed (`Last-Event-ID`)",
            Nothing,
            Text("text/event-stream"),
        ),
    ),
    route(
        "GET",
        "/v1/queues",
        LookAround,
        "All queues that the token holds for, by name",
        Nothing,
        Gives::Json("QueueList"),
    ),
    route(
        "PUT",
        "/v1/queues/{queue}",
        Produce,
        "Makes the queue, and changes its settings",
        JsonOrNothing("SettingsPatch"),
        STATUS,
    ),
    route(
        "GET",
        "/v1/queues/{queue}",
        Status,
        "Settings, phase, counts, certificate",
        Nothing,
        STATUS,
    ),
    route(
        "DELETE",
        "/v1/queues/{queue}",
        Operate,
        "Stops the queue and removes it",
        Nothing,
        STATUS,
    ),
    with(
        &[
            (
                "seal",
                FLAG,
                "Seals the queue in the step that takes the last item",
            ),
            (
                "count",
                COUNT,
                "How many items the body has; another number is refused",
            ),
        ],
        route(
            "POST",
            "/v1/queues/{queue}/items",
            Produce,
            "Pushes one item, a batch, or a stream of lines",
            Items,
            Gives::Json("PushReply"),
        ),
    ),
    with(
        &[
            (
                "state",
                r##"{"$ref":"#/components/schemas/ItemState"}"##,
                "Only items in this state",
            ),
            ("cursor", COUNT, "The `next` of the page before"),
            (
                "max",
                r#"{"type":"integer","minimum":1,"maximum":1000}"#,
                "At most so many items",
            ),
        ],
        route(
            "GET",
            "/v1/queues/{queue}/items",
            Look,
            "Items by id",
            Nothing,
            Gives::Json("ItemList"),
        ),
    ),
    route(
        "GET",
        "/v1/queues/{queue}/items/{id}",
        Look,
        "One item",
        Nothing,
        Gives::Json("ItemView"),
    ),
    route(
        "DELETE",
        "/v1/queues/{queue}/items/{id}",
        Produce,
        "Takes an item back",
        Nothing,
        Gives::Json("ItemView"),
    ),
    route(
        "POST",
        "/v1/queues/{queue}/seal",
        Produce,
        "No more items come from outside",
        Nothing,
        STATUS,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/pause",
        Operate,
        "Keeps leases back",
        Nothing,
        STATUS,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/resume",
        Operate,
        "Gives leases again",
        Nothing,
        STATUS,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/redrive",
        Operate,
        "Makes dead items ready again, or copies them into another queue",
        JsonOrNothing("RedriveRequest"),
        Gives::Json("Redriven"),
    ),
    route(
        "POST",
        "/v1/queues/{queue}/stop",
        Operate,
        "Ends the queue; what is left is abandoned",
        Takes::Json("StopRequest"),
        STATUS,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/exchange",
        Work,
        "Settles, heartbeat and lease in one call",
        EXCHANGE,
        EXCHANGED,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/lease",
        Work,
        "An exchange that only leases",
        Takes::Json("LeaseCall"),
        EXCHANGED,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/settle",
        Work,
        "An exchange that only settles",
        Takes::Json("SettleCall"),
        EXCHANGED,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/heartbeat",
        Work,
        "An exchange that only keeps the session",
        Takes::Json("HeartbeatCall"),
        EXCHANGED,
    ),
    route(
        "POST",
        "/v1/queues/{queue}/leave",
        Work,
        "An exchange that ends the session",
        Takes::Json("LeaveCall"),
        EXCHANGED,
    ),
    route(
        "GET",
        "/v1/queues/{queue}/workers",
        Look,
        "Open sessions, and what they hold",
        Nothing,
        Gives::Json("WorkerList"),
    ),
    route(
        "GET",
        "/v1/queues/{queue}/workers/{name}",
        Look,
        "Whether a worker ever had a session, and the one that it has",
        Nothing,
        Gives::Json("WorkerRecord"),
    ),
    route(
        "POST",
        "/v1/queues/{queue}/workers/{name}/revoke",
        Operate,
        "Ends the session of a worker that is known to be gone",
        JsonOrNothing("RevokeRequest"),
        Gives::Json("Revoked"),
    ),
    route(
        "GET",
        "/v1/queues/{queue}/dead",
        Look,
        "Dead items by the kind of their error",
        Nothing,
        Gives::Json("DeadItems"),
    ),
    route(
        "GET",
        "/v1/queues/{queue}/explain",
        Look,
        "Why the queue is not over yet: each term, with what stands behind it",
        Nothing,
        Gives::Json("Explanation"),
    ),
    route(
        "GET",
        "/v1/queues/{queue}/history",
        Look,
        "Points of time: milliseconds since the queue was made, items left, done, dead",
        Nothing,
        Gives::Json("History"),
    ),
    route(
        "GET",
        "/v1/queues/{queue}/job",
        Look,
        "What the controller said last of the Job whose Pods work on the queue",
        Nothing,
        Gives::Json("JobView"),
    ),
    route(
        "PUT",
        "/v1/queues/{queue}/job",
        Operate,
        "The controller says how the Job is doing; kept as long as the service runs",
        Takes::Json("JobReport"),
        Gives::Json("JobView"),
    ),
    with(
        &[
            (
                "cursor",
                COUNT,
                "How many results to skip; in the order of pushing, the id of the last item that the client has",
            ),
            (
                "follow",
                FLAG,
                "Goes on until the queue is over; in the order of pushing up to the first item that may still get a result, and from there on when it has one",
            ),
            (
                "order",
                r#"{"enum":["recorded","push"]}"#,
                "In which order; that of recording when absent. In the order of pushing a result that is recorded later may stand before the cursor: follow, or ask when the queue is over",
            ),
        ],
        route(
            "GET",
            "/v1/queues/{queue}/results",
            Look,
            "Results as lines of JSON",
            Nothing,
            Text("application/x-ndjson"),
        ),
    ),
    with(
        &[
            ("until", r#"{"enum":["over"]}"#, "What to wait for"),
            (
                "waitMs",
                COUNT,
                "How long the answer may be held, in milliseconds",
            ),
        ],
        route(
            "GET",
            "/v1/queues/{queue}/wait",
            Status,
            "The status, as soon as the queue is over or the time is up",
            Nothing,
            STATUS,
        ),
    ),
    route(
        "GET",
        "/v1/tokens",
        Grant,
        "The tokens of the caller's scope",
        Nothing,
        Gives::Json("TokenList"),
    ),
    route(
        "POST",
        "/v1/tokens",
        Grant,
        "Makes a token, or registers the hash of one",
        Takes::Json("TokenRequest"),
        Gives::Json("CreatedToken"),
    ),
    route(
        "DELETE",
        "/v1/tokens/{id}",
        Grant,
        "Revokes a token",
        Nothing,
        Gives::Json("TokenView"),
    ),
    route(
        "GET",
        "/v1/whoami",
        Status,
        "What the caller's token allows",
        Nothing,
        Gives::Json("Identity"),
    ),
];

/// Returns the number of a route in [`ROUTES`].
pub(crate) fn find(method: &str, path: &str) -> Option<usize> {
    // What answers GET answers HEAD, too.
    let method = if method == "HEAD" { "GET" } else { method };
    ROUTES
        .iter()
        .position(|route| route.path == path && route.method == method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_table_once() {
        for (place, route) in ROUTES.iter().enumerate() {
            assert_eq!(find(route.method, route.path), Some(place));
        }
        assert_eq!(find("HEAD", "/healthz"), Some(0));
        assert_eq!(find("PATCH", "/healthz"), None);
    }
}
