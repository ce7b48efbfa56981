//! The mesh as its users have it: real processes, real redirects, IPv4 and IPv6; what each promise means is seen from the outside.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

mod backpressure;
mod bytes;
mod calls;
mod destinations;
mod leaving;
mod outage;
mod pair;
mod policies;
mod resilience;
mod routing;
mod sidecars;
mod sockets;
mod streams;

use backpressure::*;
use bytes::*;
use calls::*;
use destinations::*;
use leaving::*;
use outage::*;
use policies::*;
use resilience::*;
use routing::*;
use streams::*;

weft_sandbox::tests! {
    http1_call_between_two_pods_is_mutually_authenticated,
    every_protocol_passes_two_sidecars,
    every_protocol_passes_from_envoy_to_weft,
    every_protocol_passes_from_weft_to_envoy,
    every_protocol_passes_two_envoys,
    ten_thousand_small_messages_pass_in_a_stream_either_way,
    a_cancelled_call_is_cancelled_at_the_other_end,
    a_websocket_opened_by_http2_is_a_tunnel_and_counted_while_open,
    a_side_that_has_ended_still_hears_the_other,
    an_applications_own_tls_passes_as_it_is,
    no_protocol_answers_a_pod_without_sidecar_under_strict_mode,
    strict_refuses_a_pod_without_sidecar_and_permissive_serves_it,
    a_late_client_hello_is_one_all_the_same,
    strict_mode_ends_plaintext_that_was_admitted_before,
    a_split_follows_an_edit_under_load_without_a_failure,
    envoys_follow_an_edited_split_under_load_without_a_failure,
    a_broken_edit_changes_nothing_and_is_told,
    a_dead_endpoint_is_retried_away,
    envoys_retry_a_dead_endpoint_away,
    a_failing_replica_is_hidden_by_retries_and_ejected_by_outlier_detection,
    envoys_hide_a_failing_replica_by_retries_and_eject_it,
    a_failing_replica_is_ejected_in_every_protocol,
    envoys_eject_a_failing_replica_in_every_protocol,
    a_crashing_replica_is_hidden_by_retries_in_every_protocol_of_requests,
    a_rolling_restart_loses_no_call,
    an_envoy_loses_no_call_by_a_rolling_restart,
    a_drained_sidecar_says_goodbye_and_goes_on_serving,
    a_sidecar_that_is_asked_to_end_finishes_what_it_has,
    known_traffic_survives_the_control_plane_and_nothing_is_resent_when_it_is_back,
    envoys_survive_the_control_plane_and_are_resent_nothing_when_it_is_back,
    sidecars_start_again_without_the_control_plane,
    certificates_rotate_under_load_without_a_failure,
    envoys_certificates_rotate_under_load_without_a_failure,
    the_root_rotates_under_load_without_a_failure,
    the_root_rotates_under_envoys_without_a_failure,
    an_access_policy_denies_by_identity_and_by_path,
    envoys_deny_by_identity_and_by_path,
    a_fault_policy_delays_and_aborts,
    envoys_delay_and_abort_by_a_fault_policy,
    a_pod_calls_itself_through_its_service,
    a_destination_outside_the_mesh_passes_through_as_it_is,
    the_sidecars_own_ports_are_no_destination,
    a_stalled_reader_of_http1_costs_no_memory_and_pauses_its_sender,
    a_stalled_reader_of_http2_costs_no_memory_and_pauses_its_sender,
    a_stalled_reader_of_bytes_costs_no_memory_and_pauses_its_sender,
    a_stalled_upload_by_http1_costs_no_memory_and_pauses_its_sender,
    a_stalled_upload_by_http2_costs_no_memory_and_pauses_its_sender,
    a_stalled_upload_of_bytes_costs_no_memory_and_pauses_its_sender,
}
