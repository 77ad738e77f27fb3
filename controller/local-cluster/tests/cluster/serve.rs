//! The API over HTTP: the token, a client library, logs, and the end of the server.

use std::net::SocketAddr;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, LogParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Cluster, TOKEN, World, in_time};

/// Sends a request as it stands, and reads all of the answer.
async fn raw(world: &World, headers: &str) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = format!("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) async fn nobody_comes_in_without_the_token(world: &World) {
    for headers in [
        "",
        "Authorization: Bearer open\r\n",
        "Authorization: open-sesame\r\n",
    ] {
        let answer = raw(world, headers).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{headers}: {answer}");
        assert!(answer.contains(r#""reason":"Unauthorized""#), "{answer}");
    }
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    // gangline:open-sesame
    let basic = "Authorization: Basic Z2FuZ2xpbmU6b3Blbi1zZXNhbWU=\r\n";
    for headers in [bearer.as_str(), basic] {
        let answer = raw(world, headers).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{headers}: {answer}");
    }
    println!("ok nobody comes in without the token");
}

/// A client that has read the cluster's own kubeconfig.
pub(crate) async fn client(address: SocketAddr) -> Client {
    let text = gangline_local_cluster::kubeconfig(address, TOKEN);
    let config = Kubeconfig::from_yaml(&text).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

pub(crate) async fn a_client_library_works_over_http(world: &World) {
    let nodes = Api::<Node>::all(client(world.address).await);
    let nodes = nodes.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = nodes.iter().map(|node| &node.metadata.name).collect();
    assert_eq!(names, [&Some("gangline".to_owned())]);
    println!("ok a client library works over HTTP");
}

pub(crate) async fn logs_are_followed_and_cut(world: &World) {
    let cluster = Cluster::new(client(world.address).await);
    let dir = tempfile::tempdir().unwrap();
    let (ran, go) = (dir.path().join("ran"), dir.path().join("go"));
    let script = format!(
        "if mkdir {0} 2>/dev/null; then echo before; exit 1; fi
         echo one; until [ -e {1} ]; do sleep 0.05; done; echo two",
        ran.display(),
        go.display(),
    );
    let template = json!({ "spec": { "restartPolicy": "OnFailure", "containers": [
        { "name": "main", "image": "none", "command": ["sh", "-c", script] },
    ] } });
    cluster
        .create("talks", "", json!({ "template": template }))
        .await;
    let pod = async {
        loop {
            let pods = cluster.pods_of("talks").await;
            let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
            let mut containers =
                statuses.flat_map(|status| status.container_statuses.iter().flatten());
            if containers.any(|status| status.restart_count == 1 && status.ready) {
                break pods[0].metadata.name.clone().unwrap();
            }
        }
    };
    let pod = in_time("the container runs again", pod).await;

    let followed = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = cluster
        .pods
        .log_stream(&pod, &followed)
        .await
        .unwrap()
        .lines();
    let line = in_time("the first line", lines.try_next()).await.unwrap();
    assert_eq!(line.as_deref(), Some("one"));
    std::fs::create_dir(&go).unwrap();
    let rest: Vec<String> = in_time("the rest", lines.try_collect()).await.unwrap();
    assert_eq!(rest, ["two"]);

    let logs = async |params: LogParams| cluster.pods.logs(&pod, &params).await.unwrap();
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    assert_eq!(logs(previous).await, "before\n");
    let last = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(logs(last).await, "two\n");
    let cut = LogParams {
        limit_bytes: Some(2),
        ..LogParams::default()
    };
    assert_eq!(logs(cut).await, "on");
    let stamped = LogParams {
        timestamps: true,
        since_seconds: Some(3_600),
        ..LogParams::default()
    };
    let stamped = logs(stamped).await;
    let line = stamped.lines().next().unwrap();
    let (time, text) = line.split_once(' ').unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(text, "one");
    println!("ok logs are followed and cut");
}

pub(crate) async fn a_watch_ends_with_the_server(world: World) {
    let jobs = Cluster::new(client(world.address).await).jobs;
    let version = jobs.list(&ListParams::default()).await.unwrap().metadata;
    let version = version.resource_version.unwrap();
    let watch = jobs.watch(&WatchParams::default(), &version).await.unwrap();
    let mut watch = Box::pin(watch);
    world.stop().await;
    // However it ends, it does.
    let ended = async { while let Some(Ok(_)) = watch.next().await {} };
    in_time("the watch ends", ended).await;
    println!("ok a watch ends with the server");
}
