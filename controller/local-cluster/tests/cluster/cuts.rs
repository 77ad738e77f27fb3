//! A watcher, a controller and a wait whose connections break again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::utils::Backoff;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::serve::client;
use crate::world::{World, in_time};

/// Few enough for an event or two, so that many connections are needed; more than one event ever takes.
const BYTES: std::ops::Range<usize> = 1_500..6_000;
const OBJECTS: usize = 20;

/// How often each object is changed, and how long nothing happens in between: with
/// `GANGLINE_TEST_FULL` set (`tests/run --full`) it takes some minutes.
fn changes() -> (usize, Duration) {
    match std::env::var_os("GANGLINE_TEST_FULL") {
        Some(_) => (180, Duration::from_secs(1)),
        None => (10, Duration::ZERO),
    }
}

/// Passes connections on, and cuts each after some bytes of its answers.
struct Proxy {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        let task = tokio::spawn(async move {
            let mut seed = 1_usize;
            while let Ok((client, _)) = listener.accept().await {
                // Knuth's multiplier: in another place of a line each time.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let left = BYTES.start + (seed >> 33) % BYTES.len();
                let cuts = Arc::clone(&counted);
                tokio::spawn(async move {
                    if pass(client, to, left).await {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            task,
        }
    }
}

/// Returns whether it has cut the connection.
async fn pass(client: TcpStream, to: SocketAddr, mut left: usize) -> bool {
    let server = TcpStream::connect(to).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    let mut buffer = vec![0; 512];
    let mut cut = false;
    while !cut {
        let Ok(count @ 1..) = from_server.read(&mut buffer).await else {
            break;
        };
        let passed = count.min(left);
        left -= passed;
        cut = left == 0;
        if to_client.write_all(&buffer[..passed]).await.is_err() {
            break;
        }
    }
    requests.abort();
    cut
}

/// What has become of an object: its version, or that it is gone.
type Seen = (String, Option<String>);

fn seen(object: &ConfigMap) -> Seen {
    (object.name_any(), object.resource_version())
}

pub(crate) async fn a_watcher_misses_nothing_and_sees_nothing_twice(world: &World) {
    let proxy = Proxy::start(world.address).await;
    let through = client(proxy.address).await;
    let maps = Api::<ConfigMap>::default_namespaced(through);
    let config = watcher::Config::default().labels("watched=yes");
    let mut events = Box::pin(watcher(maps, config));
    let begun = async {
        loop {
            match events.next().await.unwrap() {
                Ok(watcher::Event::InitDone) => break,
                Ok(watcher::Event::Init) | Err(_) => {}
                Ok(event) => panic!("there is nothing yet: {event:?}"),
            }
        }
    };
    in_time("the first list", begun).await;
    let watching = tokio::spawn(async move {
        let mut found: Vec<Seen> = Vec::new();
        while found.last().is_none_or(|(name, _)| name != "last") {
            match events.next().await.unwrap() {
                Ok(watcher::Event::Apply(object)) => found.push(seen(&object)),
                Ok(watcher::Event::Delete(object)) => found.push((object.name_any(), None)),
                Ok(event) => panic!("it has to begin anew: {event:?}"),
                // It asks again from where it was.
                Err(_) => {}
            }
        }
        found
    });
    let written = write(Api::default_namespaced(client(world.address).await)).await;
    let found = in_time("the last change is seen", watching).await.unwrap();
    assert_eq!(found, written);
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    assert!(cuts >= 10, "only {cuts} connections were cut");
    proxy.task.abort();
    println!("ok a watcher misses nothing and sees nothing twice");
}

/// Makes, changes and deletes objects; returns each of these changes.
async fn write(maps: Api<ConfigMap>) -> Vec<Seen> {
    let (create, now) = (PostParams::default(), DeleteParams::default());
    let map = |name: &str| {
        let meta = json!({ "name": name, "labels": { "watched": "yes" } });
        serde_json::from_value::<ConfigMap>(json!({ "metadata": meta })).unwrap()
    };
    let mut written = Vec::new();
    let mut all = Vec::new();
    for number in 0..OBJECTS {
        let made = maps
            .create(&create, &map(&format!("watched-{number}")))
            .await;
        all.push(made.unwrap());
        written.extend(all.last().map(seen));
    }
    let (changes, pause) = changes();
    for change in 0..changes {
        tokio::time::sleep(pause).await;
        for object in &mut all {
            let data = object.data.get_or_insert_default();
            data.insert("change".to_owned(), change.to_string());
            *object = maps
                .replace(&object.name_any(), &create, object)
                .await
                .unwrap();
            written.push(seen(object));
        }
    }
    for object in all {
        maps.delete(&object.name_any(), &now).await.unwrap();
        written.push((object.name_any(), None));
    }
    written.push(seen(&maps.create(&create, &map("last")).await.unwrap()));
    written
}

/// Asks again soon, however often it has failed.
struct Soon;

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(10))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

fn value(object: &ConfigMap, key: &str) -> String {
    let data = object.data.as_ref();
    data.and_then(|data| data.get(key))
        .cloned()
        .unwrap_or_default()
}

/// Writes into an object that what is wanted was done.
async fn reconcile(object: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>) -> kube::Result<Action> {
    let wanted = value(&object, "wanted");
    if value(&object, "done") != wanted {
        let patch = Patch::Merge(json!({ "data": { "done": wanted } }));
        let parameters = PatchParams::default();
        maps.patch(&object.name_any(), &parameters, &patch).await?;
    }
    Ok(Action::await_change())
}

pub(crate) async fn a_controller_and_a_wait_get_there(world: &World) {
    let proxy = Proxy::start(world.address).await;
    let through = Api::<ConfigMap>::default_namespaced(client(proxy.address).await);
    let config = watcher::Config::default().labels("driven=yes");
    let controller = Controller::new(through.clone(), config).trigger_backoff(Soon);
    let again = |_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Api<ConfigMap>>| {
        Action::requeue(Duration::from_millis(10))
    };
    let driven = controller.run(reconcile, again, Arc::new(through.clone()));
    let driving = tokio::spawn(driven.for_each(async |_| {}));
    let maps = Api::<ConfigMap>::default_namespaced(client(world.address).await);
    for number in 0..OBJECTS {
        let meta = json!({ "name": format!("driven-{number}"), "labels": { "driven": "yes" } });
        let map = serde_json::from_value(json!({ "metadata": meta })).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let (changes, pause) = changes();
    for change in 1..=changes {
        tokio::time::sleep(pause).await;
        for number in 0..OBJECTS {
            let patch = Patch::Merge(json!({ "data": { "wanted": change.to_string() } }));
            let name = format!("driven-{number}");
            maps.patch(&name, &PatchParams::default(), &patch)
                .await
                .unwrap();
        }
    }
    let last = changes.to_string();
    for number in 0..OBJECTS {
        let name = format!("driven-{number}");
        let is_done = |map: Option<&ConfigMap>| map.is_some_and(|map| value(map, "done") == last);
        // It gives up at an error of its watch, and whoever waits asks again.
        let waited = async {
            while await_condition(through.clone(), &name, is_done)
                .await
                .is_err()
            {}
        };
        in_time(&name, waited).await;
    }
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    assert!(cuts >= 10, "only {cuts} connections were cut");
    driving.abort();
    proxy.task.abort();
    println!("ok a controller and a wait get there over broken connections");
}
