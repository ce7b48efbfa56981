//! The mesh as its users have it: real processes, real redirects, IPv4 and IPv6; what each promise means is seen from the outside.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

mod calls;

use calls::*;

weft_sandbox::tests! {
    http1_call_between_two_pods_is_mutually_authenticated,
    every_protocol_passes_two_sidecars,
    strict_refuses_a_pod_without_sidecar_and_permissive_serves_it,
}
