//! What any store must do, seen over HTTP. Each case takes a service and a queue of its own.
//!
//! `GANGLINE_CONFORMANCE_URL` (and `GANGLINE_CONFORMANCE_TOKEN`) runs the cases on a service that
//! is there already.

mod cases;

use gangline_tests::redis::Keeping;
use gangline_tests::{Api, TestRedis, TestServer, server::TOKEN};

macro_rules! cases {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let mut server = super::TestServer::start().await;
                let api = super::Api::new(&server.url, Some(super::TOKEN));
                super::cases::$name(api.fresh_queue()).await;
                server.stop().await;
            })*
        }

        /// The same on two replicas that share a Redis; requests go to each by turns.
        mod redis {
            $(#[tokio::test]
            async fn $name() {
                let Some(redis) = super::redis() else { return };
                let mut replicas = [
                    super::TestServer::start_on_redis(&redis.url).await,
                    super::TestServer::start_on_redis(&redis.url).await,
                ];
                let urls = [&*replicas[0].url, &*replicas[1].url];
                let api = super::Api::of_replicas(&urls, Some(super::TOKEN));
                super::cases::$name(api.fresh_queue()).await;
                for replica in &mut replicas {
                    replica.stop().await;
                }
            })*
        }

        /// All at once, on two replicas that share a Redis Cluster of three primaries.
        #[tokio::test]
        async fn redis_cluster() {
            if TestRedis::is_installed() {
                let cluster = gangline_tests::TestCluster::start(false);
                all_at_once(&cluster.url).await;
            }
        }

        /// All at once, on two replicas that share a Valkey.
        #[tokio::test]
        async fn valkey() {
            if let Some(valkey) = TestRedis::start_valkey() {
                all_at_once(&valkey.url).await;
            }
        }

        async fn all_at_once(url: &str) {
            let mut replicas = [
                TestServer::start_on_redis(url).await,
                TestServer::start_on_redis(url).await,
            ];
            let urls = [&*replicas[0].url, &*replicas[1].url];
            let api = Api::of_replicas(&urls, Some(TOKEN));
            type Case = std::pin::Pin<Box<dyn Future<Output = ()>>>;
            let all: Vec<Case> = vec![$(Box::pin(cases::$name(api.fresh_queue()))),*];
            futures::future::join_all(all).await;
            for replica in &mut replicas {
                replica.stop().await;
            }
        }

        #[tokio::test]
        async fn on_a_service_that_is_there_already() {
            let Some(api) = given() else { return };
            $(cases::$name(api.fresh_queue()).await;)*
        }
    };
}

/// Starts a Redis for a case, if there is one to start.
fn redis() -> Option<TestRedis> {
    TestRedis::is_installed().then(|| TestRedis::start(Keeping::Memory))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is configured by its environment"
)]
fn given() -> Option<Api> {
    let url = std::env::var("GANGLINE_CONFORMANCE_URL").ok()?;
    let token = std::env::var("GANGLINE_CONFORMANCE_TOKEN").ok();
    Some(Api::new(&url, token.as_deref()))
}

cases! {
    a_push_makes_the_queue_and_numbers_its_items
    a_single_item_is_pushed_as_an_object
    a_trace_comes_to_the_worker_with_its_items
    payloads_come_back_byte_for_byte
    results_come_back_byte_for_byte_on_one_line
    a_second_item_of_a_key_is_not_taken
    a_key_stays_taken_after_its_item_is_done
    a_batch_under_an_idempotency_key_is_taken_once
    another_body_under_an_idempotency_key_is_refused
    an_idempotency_key_survives_the_deletion_of_its_queue
    a_stream_is_taken_in_chunks_and_sealed_at_its_end
    a_stream_that_is_sent_again_adds_nothing
    a_stream_continues_where_a_shorter_one_ended
    a_stream_with_a_differing_prefix_is_refused
    a_stream_without_a_key_is_all_or_nothing
    a_bad_line_of_a_stream_is_named
    a_stream_of_another_length_than_announced_is_not_sealed
    a_sealed_queue_takes_no_new_items_and_answers_repeats
    a_seal_of_an_empty_queue_drains_it
    the_last_settle_drains_a_sealed_queue_in_its_own_answer
    a_drained_queue_shows_its_certificate_to_everybody
    higher_priorities_come_first_and_equal_ones_in_order
    a_lease_of_large_payloads_gives_fewer_than_asked_for
    a_delayed_item_waits_for_its_time
    a_lease_on_a_queue_that_does_not_exist_waits
    how_far_a_worker_is_with_an_item_is_shown_until_its_lease_ends
    a_held_lease_is_woken_by_a_push
    a_held_lease_is_woken_by_the_end
    a_revoked_session_in_line_keeps_no_item_from_the_next
    a_repeated_lease_request_gets_the_same_items
    a_lease_request_with_an_older_number_is_refused
    a_repeated_first_call_continues_its_session
    a_repeated_settle_gets_the_same_answer
    a_settle_with_an_older_lease_changes_nothing
    a_settle_after_the_session_has_left_still_counts_as_done
    a_late_retry_after_the_session_was_revoked_is_stale
    a_history_says_how_each_attempt_ended
    a_retry_comes_back_after_its_delay_with_the_next_attempt
    an_item_out_of_attempts_is_dead_with_its_last_error
    a_dead_item_can_be_redriven
    a_released_item_counts_no_attempt
    a_done_spawns_items_even_into_a_sealed_queue
    a_new_session_of_a_name_ends_the_older_one
    a_leaving_session_gives_its_items_back_first_in_line
    a_revoked_worker_gets_no_new_session_for_a_while
    a_counted_revoke_counts_an_attempt_and_an_uncounted_one_does_not
    a_held_heartbeat_is_answered_when_its_item_is_cancelled
    a_stop_abandons_what_is_left_and_refuses_results
    a_worker_stops_the_queue_with_its_settle
    a_paused_queue_hands_out_nothing_until_it_is_resumed
    max_leased_bounds_all_sessions_together
    full_results_hold_leases_back_until_more_are_allowed
    the_time_limit_of_a_queue_is_that_of_items_without_one
    a_queue_that_is_idle_for_long_enough_seals_itself
    cancelled_items_are_a_fourth_end
    a_deleted_queue_is_gone_and_its_workers_hear_of_it
    an_old_uid_is_answered_over
    settings_out_of_bounds_are_refused_by_name
    unknown_fields_are_refused_with_their_path
    fields_that_do_not_go_with_an_outcome_are_refused
    bad_names_in_the_path_are_refused
    forms_and_other_media_types_are_refused
    workers_show_what_they_hold
    a_worker_is_known_to_have_had_a_session_after_its_end
    results_are_resumed_by_cursor_and_followed_to_the_end
    wait_answers_at_the_end
    the_digest_is_that_of_the_results
    an_explanation_has_every_term_that_keeps_a_queue_open
    dead_items_are_grouped_by_the_kind_of_their_error
    results_come_in_the_order_of_pushing_when_asked_for
    results_are_followed_in_the_order_of_pushing
    results_of_a_queue_that_is_deleted_break_off
    a_redrive_takes_those_that_it_is_asked_for
    dead_items_of_a_queue_that_is_over_live_on_in_another
}
