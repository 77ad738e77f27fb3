//! The kubelet against an API in memory. Without the usual harness, since this executable is also the supervisor.
//!
//! `cargo test --test kubelet -- WORD` runs the claims whose name holds the word; `-- speed N` says how long N Pods of `true` take.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod care;
mod ends;
mod environment;
mod init;
mod logs;
mod recovery;
mod restarts;
mod volumes;
mod world;

use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use gangline_local_cluster::kubelet::supervisor;
use serde_json::json;

type Claim = (
    &'static str,
    fn() -> Pin<Box<dyn Future<Output = ()> + Send>>,
);

/// Lists the claims of the modules by name.
macro_rules! claims {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), || Box::pin($module::$name())),)*)*]
    };
}

const CLAIMS: &[Claim] = claims! {
    care: a_pre_stop_hook_comes_before_the_end
        a_pre_stop_hook_ends_with_the_grace_period
        a_failed_post_start_hook_ends_the_container
        readiness_follows_its_probe
        a_startup_probe_holds_the_others_back
        a_failed_liveness_probe_restarts_the_container;
    ends: exit_codes_and_signals_end_a_pod
        a_pod_without_a_command_fails_at_once
        a_field_that_cannot_be_honoured_is_refused_by_its_path
        an_unknown_program_is_a_start_error
        the_deadline_ends_a_pod
        deletion_terminates_waits_and_kills_all_descendants
        deletion_without_grace_kills_at_once
        a_second_deletion_can_shorten_the_grace
        only_the_program_itself_is_told_to_end
        conditions_keep_their_times_and_those_of_others
        statuses_are_written_on_change_only_and_never_after_the_last
        a_failure_can_be_explained_by_its_log
        a_pod_that_forks_without_end_is_ended_and_others_are_not
        a_container_with_more_memory_than_it_may_have_is_ended
        programs_go_before_their_supervisor_when_memory_is_out
        memory_that_processes_share_is_counted_once
        a_thousand_short_pods_need_few_supervisors;
    environment: references_are_expanded_in_command_and_arguments
        a_missing_config_map_is_waited_for
        images_stand_for_commands
        the_environment_of_the_server_is_not_the_containers;
    init: init_containers_run_one_after_the_other
        a_failed_init_container_fails_a_pod_that_never_restarts
        a_failed_init_container_is_retried_otherwise
        a_sidecar_runs_beside_the_containers_and_ends_after_them
        a_second_deletion_reaches_sidecars_that_are_ending;
    logs: both_streams_come_without_their_records
        options_choose_lines_and_bytes
        a_log_is_followed_to_its_end
        the_log_of_the_previous_run_is_kept
        a_log_is_bounded_and_keeps_the_newest_lines;
    recovery: a_run_is_found_again_after_a_restart
        an_end_while_no_server_ran_is_not_lost
        a_found_run_can_be_stopped
        a_killed_supervisor_is_an_unknown_status_and_leaves_nothing
        a_run_starts_although_all_idle_supervisors_have_left
        a_state_of_an_earlier_boot_is_not_believed
        a_run_is_carried_out_once
        a_line_that_was_cut_off_is_none
        a_bound_program_ends_with_its_server
        what_is_left_of_pods_that_are_gone_is_ended_and_removed
        what_has_run_is_not_run_again_when_the_state_is_lost;
    restarts: on_failure_restarts_until_success
        always_restarts_after_success_too
        never_does_not_restart
        a_container_waits_in_back_off_and_says_so
        containers_restart_by_themselves;
    volumes: an_empty_dir_is_shared_by_the_containers_of_a_pod
        config_maps_secrets_and_fields_are_files
        a_missing_config_map_of_a_volume_is_waited_for
        parts_of_volumes_and_places_of_the_machine_are_mounted
        an_end_behind_mounts_is_seen_as_any_other
        volumes_that_cannot_be_are_refused_by_their_path
        a_machine_without_views_says_where_the_volumes_are;
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "supervise").is_some() {
        return supervisor::main();
    }
    if args.next_if(|arg| arg == "serve").is_some() {
        let (root, pod) = (args.next().unwrap(), args.next().unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(world::serve(root.into(), &pod));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if args.next_if(|arg| arg == "speed").is_some() {
        let pods = args
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(500);
        runtime.block_on(speed(pods));
        return ExitCode::SUCCESS;
    }
    let wanted = args.find(|arg| !arg.starts_with('-')).unwrap_or_default();
    runtime.block_on(check(&wanted))
}

/// Runs the claims beside each other; each has a world of its own.
async fn check(wanted: &str) -> ExitCode {
    let mut tasks = Vec::new();
    for (name, claim) in CLAIMS.iter().filter(|(name, _)| name.contains(wanted)) {
        tasks.push((name, tokio::spawn(claim())));
    }
    let mut code = ExitCode::SUCCESS;
    for (name, task) in tasks {
        let held = task.await.is_ok();
        println!("test {name} ... {}", if held { "ok" } else { "FAILED" });
        if !held {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Says how fast the kubelet alone gets Pods of `true` to their end.
async fn speed(count: usize) {
    let world = world::World::new();
    for round in 0..3 {
        let begin = tokio::time::Instant::now();
        for number in 0..count {
            let uid = format!("p{round}-{number}");
            world
                .api
                .apply(world::single(&uid, json!({"command": ["true"]}), json!({})));
        }
        for number in 0..count {
            let uid = format!("p{round}-{number}");
            assert_eq!(world.api.ended(&uid).await.1, 0);
        }
        let took: Duration = begin.elapsed();
        println!(
            "{count} Pods in {took:?}: {:.0}/s",
            count as f64 / took.as_secs_f64()
        );
    }
}
