//! What is left when a cluster starts again.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, PostParams, WatchParams};
use serde_json::json;

use crate::world::{World, in_time};

fn number(version: Option<String>) -> u64 {
    version.unwrap().parse().unwrap()
}

pub(crate) async fn objects_and_processes_outlive_the_server() {
    let root = tempfile::tempdir().unwrap();
    let go = root.path().join("go");
    let world = World::start(root.path()).await;
    let maps = Api::<ConfigMap>::default_namespaced(world.cluster.client.clone());
    for name in ["kept", "dropped"] {
        let map =
            serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "a": "b" } }));
        maps.create(&PostParams::default(), &map.unwrap())
            .await
            .unwrap();
    }
    maps.delete("dropped", &DeleteParams::default())
        .await
        .unwrap();
    let kept = maps.get("kept").await.unwrap();
    let script = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    let made = world.cluster.create("long", &script, json!({})).await;
    let running = async {
        loop {
            let pods = world.cluster.pods_of("long").await;
            let phase = pods
                .first()
                .and_then(|pod| pod.status.as_ref()?.phase.clone());
            if phase.as_deref() == Some("Running") {
                break pods[0].metadata.uid.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let pod = in_time("the Pod runs", running).await;
    let old = number(
        world
            .cluster
            .jobs
            .get("long")
            .await
            .unwrap()
            .metadata
            .resource_version,
    );
    drop(maps);
    world.stop().await;

    let world = World::start(root.path()).await;
    let maps = Api::<ConfigMap>::default_namespaced(world.cluster.client.clone());
    assert_eq!(maps.get("kept").await.unwrap(), kept);
    assert_eq!(maps.get_opt("dropped").await.unwrap(), None);
    let found = world.cluster.jobs.get("long").await.unwrap();
    assert_eq!(found.metadata.uid, made.metadata.uid);
    let watch = world
        .cluster
        .jobs
        .watch(&WatchParams::default(), &old.to_string())
        .await;
    let first = in_time("an answer", Box::pin(watch.unwrap()).next())
        .await
        .unwrap();
    let told = serde_json::to_string(&first.unwrap()).unwrap();
    assert!(told.contains("\"code\":410"), "{told}");

    std::fs::create_dir(&go).unwrap();
    let status = world.cluster.until("long", "Complete").await;
    assert_eq!((status.succeeded, status.failed), (Some(1), None));
    let pods = world.cluster.pods_of("long").await;
    assert_eq!((pods.len(), &pods[0].metadata.uid), (1, &pod));
    let newest = number(
        world
            .cluster
            .jobs
            .get("long")
            .await
            .unwrap()
            .metadata
            .resource_version,
    );
    assert!(newest > old);
    world.stop().await;
    println!("ok objects and processes outlive the server");
}
