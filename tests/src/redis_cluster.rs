//! A Redis Cluster of a test's own: three primaries on loopback, each with a replica if wanted.

use crate::redis::{ASK, Keeping, TestRedis, free_port};

/// How often nodes are introduced to each other: for a minute.
const MEETINGS_MAX: u32 = 3_000;

/// A running cluster; dropping it kills its nodes.
#[derive(Debug)]
pub struct TestCluster {
    /// All nodes; the first three were started as primaries.
    pub nodes: Vec<TestRedis>,
    /// Where they listen, in one URL.
    pub url: String,
}

impl TestCluster {
    /// Starts three primaries, and a replica of each when asked for.
    #[must_use]
    pub fn start(with_replicas: bool) -> Self {
        let count = if with_replicas { 6 } else { 3 };
        let nodes: Vec<(TestRedis, String)> = (0..count).map(|_| node()).collect();
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for ((node, _), (first, last)) in nodes.iter().zip(slots) {
            assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]), "OK");
        }
        introduce(&nodes);
        for ((replica, _), (primary, _)) in nodes[3..].iter().zip(&nodes) {
            let id = primary.ask(&["CLUSTER", "MYID"]);
            assert_eq!(replica.ask(&["CLUSTER", "REPLICATE", &id]), "OK");
            replica.until_it_says(&["INFO", "replication"], "master_link_status:up");
        }
        for (node, _) in &nodes {
            node.until_it_says(&["CLUSTER", "INFO"], "cluster_state:ok");
        }
        let nodes: Vec<TestRedis> = nodes.into_iter().map(|(node, _)| node).collect();
        let hosts: Vec<String> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        let url = format!("redis://{}", hosts.join(","));
        Self { nodes, url }
    }
}

/// Makes all nodes known to each other.
fn introduce(nodes: &[(TestRedis, String)]) {
    let (first, others) = nodes.split_first().expect("nodes");
    let known = format!("cluster_known_nodes:{}", nodes.len());
    let all_know_all = || {
        let mut all = nodes.iter();
        all.all(|(node, _)| node.ask(&["CLUSTER", "INFO"]).contains(&known))
    };
    for _ in 0..MEETINGS_MAX {
        let met = first.0.ask(&["CLUSTER", "NODES"]);
        for (node, bus) in others {
            let port = node.port().to_string();
            // Whoever does not answer for a second is forgotten again.
            if !met.contains(&format!(":{port}@")) {
                let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, bus];
                assert_eq!(first.0.ask(&meet), "OK");
            }
        }
        if all_know_all() {
            return;
        }
        std::thread::sleep(ASK);
    }
    panic!(
        "nodes that do not meet: {}",
        first.0.ask(&["CLUSTER", "NODES"])
    );
}

fn node() -> (TestRedis, String) {
    let bus = free_port().to_string();
    let extra = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        "1000",
    ];
    (TestRedis::start_with(Keeping::Memory, &extra), bus)
}
