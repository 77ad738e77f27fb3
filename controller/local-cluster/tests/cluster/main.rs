//! The local cluster as a whole: Jobs, its API over HTTP, and `kubectl` as its client.
//!
//! Without the usual harness, since this executable is also the supervisor. With the argument `measure` it prints
//! how many Pods a second come to their end (`cargo test --release -p gangline-local-cluster --test cluster -- measure`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod cuts;
mod jobs;
mod kubectl;
mod pods;
mod restart;
mod serve;
mod world;

use std::process::ExitCode;

use gangline_local_cluster::kubelet::supervisor;
use world::World;

async fn all() {
    let root = tempfile::tempdir().unwrap();
    let world = World::start(root.path()).await;
    let cluster = &world.cluster;
    jobs::bad_requests_are_refused_with_the_field(cluster).await;
    jobs::jobs_are_judged_by_those_who_run_the_cluster(cluster).await;
    Box::pin(jobs::an_evicted_pod_is_no_failure_of_its_job(cluster)).await;
    jobs::a_watch_goes_on_where_a_list_was_read(cluster).await;
    Box::pin(jobs::jobs_of_every_kind_come_to_their_end(cluster)).await;
    jobs::a_work_queue_makes_no_pods_after_the_first_success(cluster).await;
    Box::pin(jobs::a_deleted_job_takes_its_pods_along(cluster)).await;
    jobs::an_orphaned_pod_stays(cluster).await;
    jobs::a_finished_job_goes_when_its_time_is_over(cluster).await;
    serve::nobody_comes_in_without_the_token(&world).await;
    serve::a_client_library_works_over_http(&world).await;
    Box::pin(serve::logs_are_followed_and_cut(&world)).await;
    Box::pin(cuts::a_watcher_misses_nothing_and_sees_nothing_twice(
        &world,
    ))
    .await;
    Box::pin(cuts::a_controller_and_a_wait_get_there(&world)).await;
    kubectl::a_session_works_without_a_flag(&world).await;
    Box::pin(serve::a_watch_ends_with_the_server(world)).await;
    Box::pin(restart::objects_and_processes_outlive_the_server()).await;
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    match argument.as_deref() {
        Some("supervise") => return supervisor::main(),
        Some("measure") => runtime().block_on(pods::measure()),
        _ => runtime().block_on(all()),
    }
    ExitCode::SUCCESS
}
