//! A Kubernetes API in memory: just what the controller asks for, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use json_patch::PatchOperation;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;
type Answer = Result<Value, (StatusCode, &'static str)>;

/// What goes wrong with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not carried out, and refused.
    Refused,
    /// It is carried out, and its reply is lost.
    ReplyLost,
    /// Somebody else was faster.
    Conflict,
    /// There are too many of them.
    Throttled,
    /// It is not carried out, and never answered.
    Hangs,
    /// It is carried out, and never answered.
    HangsAfter,
}

/// Tells whether a write of this method, to this kind, is refused, and with what.
type Refusal = Box<dyn Fn(&Method, &str, &Value) -> Option<Value> + Send>;

/// A Kubernetes API in memory.
#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    history: Vec<(u64, String, Value)>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    writes: usize,
    faults: VecDeque<(usize, Fault)>,
    pods_made: Vec<Value>,
    /// What answers instead of the API.
    refusal: Option<Refusal>,
    refused: usize,
    hanging: usize,
    is_away: bool,
    /// Watches from before this version are told that it is too old.
    oldest: u64,
    /// Whether watches are told nothing.
    is_silent: bool,
    /// Random numbers for the fate of events, if they are not told as they happen.
    chaos: Option<u64>,
    held: VecDeque<(String, Bytes)>,
}

/// The parts of a path of the API.
struct Target {
    plural: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                if api.lock().is_away {
                    return Err(std::io::Error::other("connection refused"));
                }
                Ok(api.serve(request).await)
            }
        });
        Client::new(service, "default")
    }

    /// Has the `nth` write from now on go wrong, counted from 0.
    pub(crate) fn fail(&self, nth: usize, fault: Fault) {
        let mut state = self.lock();
        let at = state.writes + nth;
        state.faults.push_back((at, fault));
    }

    /// Has writes refused, with the status that `refusal` gives, until [`Self::allow`].
    pub(crate) fn refuse(
        &self,
        refusal: impl Fn(&Method, &str, &Value) -> Option<Value> + Send + 'static,
    ) {
        self.lock().refusal = Some(Box::new(refusal));
    }

    pub(crate) fn allow(&self) {
        self.lock().refusal = None;
    }

    /// How many writes were refused that way.
    pub(crate) fn refused(&self) -> usize {
        self.lock().refused
    }

    /// How many calls have hung.
    pub(crate) fn hanging(&self) -> usize {
        self.lock().hanging
    }

    /// How many writes there have been.
    pub(crate) fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Has the API go away, with every watch, or come back.
    pub(crate) fn go_away(&self, is_away: bool) {
        let mut state = self.lock();
        state.is_away = is_away;
        state.watches.clear();
    }

    /// Ends every watch; those that ask for what they have missed are told that it is too old.
    pub(crate) fn lose_watches(&self, history_too: bool) {
        let mut state = self.lock();
        state.watches.clear();
        if history_too {
            state.oldest = state.version;
            state.history.clear();
        }
    }

    /// Has watches hear nothing of what happens, or all that they have missed.
    pub(crate) fn silence(&self, is_silent: bool) {
        self.lock().is_silent = is_silent;
        if !is_silent {
            self.lose_watches(false);
        }
    }

    /// Has events come late, twice, or behind those of other kinds from now on.
    pub(crate) fn disturb(&self, seed: u64) {
        self.lock().chaos = Some(seed);
    }

    pub(crate) fn put(&self, plural: &str, object: Value) {
        let mut state = self.lock();
        state.store(plural, object, "ADDED");
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.lock()
            .objects
            .get(&(plural.into(), name.into()))
            .cloned()
    }

    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.lock();
        let of_kind = state.objects.iter().filter(|((of, _), _)| of == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// Every Pod that was ever made.
    pub(crate) fn pods_made(&self) -> Vec<Value> {
        self.lock().pods_made.clone()
    }

    /// Changes an object as its user, kubelet or garbage collector would.
    pub(crate) fn change(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.lock();
        let key = (plural.to_owned(), name.to_owned());
        let mut object = state.objects[&key].clone();
        change(&mut object);
        state.store(plural, object, "MODIFIED");
    }

    /// Removes an object, whatever its finalizers.
    pub(crate) fn remove(&self, plural: &str, name: &str) {
        self.lock().remove(plural, name);
    }

    /// Ends a Pod with an exit code.
    pub(crate) fn finish(&self, name: &str, code: i32) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        self.change("pods", name, |pod| {
            let terminated = json!({ "exitCode": code, "finishedAt": now });
            let container = json!({ "name": "main", "state": { "terminated": terminated } });
            pod["status"] = json!({ "phase": phase, "containerStatuses": [container] });
        });
    }

    /// Names of Pods without a terminal phase.
    pub(crate) fn live_pods(&self) -> Vec<String> {
        self.all("pods")
            .into_iter()
            .filter(|pod| {
                !matches!(
                    pod["status"]["phase"].as_str(),
                    Some("Succeeded" | "Failed")
                )
            })
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn event_reasons(&self) -> Vec<String> {
        let events = self.all("events");
        let reason = |event: &Value| event["reason"].as_str().unwrap().to_owned();
        events.iter().map(reason).collect()
    }

    /// Waits until `condition` gives something.
    #[track_caller]
    pub(crate) fn until<T>(
        &self,
        what: &str,
        condition: impl Fn(&Self) -> Option<T>,
    ) -> impl Future<Output = T> {
        let api = self.clone();
        let what = what.to_owned();
        async move {
            let poll = async {
                let mut ticks = tokio::time::interval(Duration::from_millis(2));
                loop {
                    ticks.tick().await;
                    api.lock().tell_held();
                    if let Some(found) = condition(&api) {
                        return found;
                    }
                }
            };
            let Ok(found) = tokio::time::timeout(Duration::from_secs(20), poll).await else {
                panic!(
                    "never {what}; {:#?} {:#?}",
                    api.all("jobs"),
                    api.all("pods")
                );
            };
            found
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(&self, request: Request<Body>) -> Reply {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let query = parts.uri.query().unwrap_or_default();
        let target = target(parts.uri.path());
        if parts.method == Method::GET && query.contains("watch=true") {
            let since = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("resourceVersion="));
            let since = since.unwrap().parse().unwrap();
            return self.lock().watch(&target.plural, since);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let answer = self.lock().answer(&parts.method, &target, body);
        match answer {
            Some(reply) => reply,
            None => {
                self.lock().hanging += 1;
                std::future::pending().await
            }
        }
    }
}

impl State {
    /// Returns nothing for what is never answered.
    fn answer(&mut self, method: &Method, target: &Target, body: Value) -> Option<Reply> {
        let state = self;
        if method == Method::GET {
            return Some(reply(state.read(target)));
        }
        let wanted = state.refusal.as_ref();
        if let Some(status) = wanted.and_then(|refusal| refusal(method, &target.plural, &body)) {
            state.refused += 1;
            return Some(refuse(&status));
        }
        // Events are only said: no test counts on their order among the writes.
        let fault = if target.plural == "events" {
            None
        } else {
            state.next_fault()
        };
        Some(match fault {
            Some(Fault::Refused) => refusal(StatusCode::FORBIDDEN, "Forbidden"),
            Some(Fault::Conflict) => refusal(StatusCode::CONFLICT, "Conflict"),
            Some(Fault::Throttled) => refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Some(Fault::ReplyLost) => {
                let _ = state.write(method, target, body);
                refusal(StatusCode::GATEWAY_TIMEOUT, "Timeout")
            }
            Some(Fault::Hangs) => return None,
            Some(Fault::HangsAfter) => {
                let _ = state.write(method, target, body);
                return None;
            }
            None => reply(state.write(method, target, body)),
        })
    }

    fn next_fault(&mut self) -> Option<Fault> {
        let nth = self.writes;
        self.writes += 1;
        let position = self.faults.iter().position(|(at, _)| *at == nth)?;
        self.faults.remove(position).map(|(_, fault)| fault)
    }

    fn read(&self, target: &Target) -> Answer {
        let Some(name) = &target.name else {
            let of_kind = self
                .objects
                .iter()
                .filter(|((of, _), _)| *of == target.plural);
            let items: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
            let version = self.version.to_string();
            return Ok(json!({
                "kind": "List", "metadata": { "resourceVersion": version }, "items": items,
            }));
        };
        let key = (target.plural.clone(), name.clone());
        self.objects
            .get(&key)
            .cloned()
            .ok_or((StatusCode::NOT_FOUND, "NotFound"))
    }

    fn write(&mut self, method: &Method, target: &Target, body: Value) -> Answer {
        let plural = target.plural.as_str();
        if method == Method::POST {
            return self.create(plural, body);
        }
        let before = self.read(target)?;
        let name = target.name.as_deref().unwrap();
        if method == Method::DELETE {
            return self.delete(plural, name, before, &body);
        }
        let mut after = before.clone();
        if body.is_array() {
            let operations: Vec<PatchOperation> =
                serde_json::from_value(body).expect("a JSON patch");
            json_patch::patch(&mut after, &operations)
                .map_err(|_| (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"))?;
        } else {
            let wanted = &body["metadata"]["resourceVersion"];
            if !wanted.is_null() && *wanted != before["metadata"]["resourceVersion"] {
                return Err((StatusCode::CONFLICT, "Conflict"));
            }
            json_patch::merge(&mut after, &body);
        }
        if target.subresource.as_deref() == Some("status") {
            let status = after["status"].take();
            after = before;
            after["status"] = status;
        }
        let has_finalizers = after["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        let is_going = after["metadata"]["deletionTimestamp"].is_string();
        let is_over = after["status"]["phase"]
            .as_str()
            .is_none_or(|phase| phase != "Running");
        if is_going && !has_finalizers && is_over {
            self.remove(plural, name);
            return Ok(after);
        }
        Ok(self.store(plural, after, "MODIFIED"))
    }

    fn create(&mut self, plural: &str, mut object: Value) -> Answer {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if self
            .objects
            .contains_key(&(plural.to_owned(), name.clone()))
        {
            return Err((StatusCode::CONFLICT, "AlreadyExists"));
        }
        object["metadata"]["uid"] = format!("uid-{name}").into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        if plural == "pods" {
            object["status"] = json!({ "phase": "Pending" });
            self.pods_made.push(object.clone());
        }
        Ok(self.store(plural, object, "ADDED"))
    }

    fn delete(&mut self, plural: &str, name: &str, mut object: Value, options: &Value) -> Answer {
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        let is_running = object["status"]["phase"] == "Running";
        let is_held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        if is_running || is_held {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
            object["metadata"]["deletionGracePeriodSeconds"] = 30.into();
            return Ok(self.store(plural, object, "MODIFIED"));
        }
        self.remove(plural, name);
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "code": 200 }))
    }

    fn store(&mut self, plural: &str, mut object: Value, what: &str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object["metadata"]["namespace"] = "default".into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects
            .insert((plural.to_owned(), name), object.clone());
        self.tell(plural, what, &object);
        object
    }

    fn remove(&mut self, plural: &str, name: &str) {
        if let Some(mut object) = self.objects.remove(&(plural.to_owned(), name.to_owned())) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.tell(plural, "DELETED", &object);
        }
    }

    fn tell(&mut self, plural: &str, what: &str, object: &Value) {
        let event = json!({ "type": what, "object": object });
        self.history
            .push((self.version, plural.to_owned(), event.clone()));
        if self.is_silent {
            return;
        }
        let copies = match self.chaos.as_mut().map(next_random) {
            // Told now, behind what is held of its own kind, and again later.
            Some(random) if random % 4 == 0 => 2,
            Some(random) if random % 4 < 3 => 1,
            Some(_) | None => 0,
        };
        if copies == 0 && !self.held.iter().any(|(of, _)| of == plural) {
            self.send(plural, &line(&event));
        } else {
            for _ in 0..copies.max(1) {
                self.held.push_back((plural.to_owned(), line(&event)));
            }
        }
    }

    fn send(&mut self, plural: &str, line: &Bytes) {
        self.watches
            .retain(|(of, watch)| of != plural || watch.unbounded_send(line.clone()).is_ok());
    }

    /// Tells some of what is held: one kind before the other, each in its own order.
    fn tell_held(&mut self) {
        let Some(random) = self.chaos.as_mut().map(next_random) else {
            return;
        };
        let first = if random % 2 == 0 { "pods" } else { "jobs" };
        let (mut told, kept): (VecDeque<_>, VecDeque<_>) =
            self.held.drain(..).partition(|(of, _)| of == first);
        for (plural, line) in told.drain(..) {
            self.send(&plural, &line);
        }
        self.held = kept;
    }

    fn watch(&mut self, plural: &str, since: u64) -> Reply {
        if since < self.oldest {
            // Servers say it in either way.
            if plural == "pods" {
                return refusal(StatusCode::GONE, "Expired");
            }
            let status =
                json!({ "kind": "Status", "reason": "Expired", "message": "", "code": 410 });
            let event = json!({ "type": "ERROR", "object": status });
            return Response::new(Full::new(line(&event)).boxed_unsync());
        }
        let (sender, receiver) = mpsc::unbounded();
        let missed: Vec<Bytes> = self
            .history
            .iter()
            .filter(|(version, of, _)| *version > since && of == plural)
            .map(|(_, _, event)| line(event))
            .collect();
        self.watches.push((plural.to_owned(), sender));
        let frames = stream::iter(missed)
            .chain(receiver)
            .map(|bytes| Ok(http_body::Frame::data(bytes)));
        Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
    }
}

fn target(path: &str) -> Target {
    let mut parts = path
        .trim_matches('/')
        .split('/')
        .skip_while(|part| *part != "v1");
    parts.next();
    let mut rest: Vec<String> = parts.map(str::to_owned).collect();
    if rest[0] == "namespaces" && rest.len() > 2 {
        rest.drain(..2);
    }
    let mut rest = rest.into_iter();
    Target {
        plural: rest.next().unwrap(),
        name: rest.next(),
        subresource: rest.next(),
    }
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Ok(object) => Response::new(whole(&object)),
        Err((code, reason)) => refusal(code, reason),
    }
}

fn refusal(code: StatusCode, reason: &str) -> Reply {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    refuse(&status)
}

fn refuse(status: &Value) -> Reply {
    let code = status["code"].as_u64().unwrap();
    let mut response = Response::new(whole(status));
    *response.status_mut() = StatusCode::from_u16(u16::try_from(code).unwrap()).unwrap();
    response
}

/// A linear congruential generator: what a seed has shown, it shows again.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn whole(object: &Value) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(object.to_string())).boxed_unsync()
}
