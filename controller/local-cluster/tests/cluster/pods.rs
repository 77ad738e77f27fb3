//! How many Pods a second come to their end: a measurement, not a test.

use tokio::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use serde_json::json;

use crate::world::World;

/// Pods of either kind in one round, and how many of them there are at a time.
const PODS: usize = 500;
const AT_A_TIME: usize = 50;
const ROUNDS: usize = 5;

/// Runs `true` in Pods, as completions of a Job and without a Job, and prints the rate of each round.
pub(crate) async fn measure() {
    for round in 1..=ROUNDS {
        let root = tempfile::tempdir().unwrap();
        let world = World::start(root.path()).await;
        let started = Instant::now();
        let spec = json!({ "completions": PODS, "parallelism": AT_A_TIME });
        world.cluster.create("rate", "true", spec).await;
        world.cluster.until("rate", "Complete").await;
        let by_job = started.elapsed();

        let started = Instant::now();
        let all = stream::iter(0..PODS).map(|number| run_alone(&world, number));
        all.buffer_unordered(AT_A_TIME).collect::<()>().await;
        let alone = started.elapsed();
        let rate = |time: std::time::Duration| PODS as f64 / time.as_secs_f64();
        println!(
            "round {round}: {:.0} Pods/s of a Job, {:.0} Pods/s alone",
            rate(by_job),
            rate(alone)
        );
        world.stop().await;
    }
}

async fn run_alone(world: &World, number: usize) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": format!("alone-{number}") },
        "spec": { "restartPolicy": "Never", "containers": [
            { "name": "main", "image": "none", "command": ["true"] },
        ] },
    }))
    .unwrap();
    let pods = &world.cluster.pods;
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let name = pod.metadata.name.unwrap();
    let is_over = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        status.is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
    };
    let seen = await_condition(pods.clone(), &name, is_over).await;
    seen.unwrap();
}
