//! Which sidecar sits where: the same tests for our own proxy and for an unmodified Envoy.

use weft_local_mesh::{Dialect, Programs, Sidecar};
use weft_sandbox::testing::{self, Failure};

/// Who sits beside the callers, and who beside the called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sidecars {
    pub(crate) caller: Sidecar,
    pub(crate) called: Sidecar,
}

const DELTA: Sidecar = Sidecar::Envoy(Dialect::Delta);
const STATE_OF_THE_WORLD: Sidecar = Sidecar::Envoy(Dialect::StateOfTheWorld);

impl Sidecars {
    pub(crate) const WEFT: Self = Self { caller: Sidecar::Weft, called: Sidecar::Weft };

    /// An Envoy calls, our own proxy is called.
    pub(crate) fn envoy_calls() -> Result<Self, Failure> {
        with_envoy(Self { caller: DELTA, called: Sidecar::Weft })
    }

    /// The other way round.
    pub(crate) fn envoy_is_called() -> Result<Self, Failure> {
        with_envoy(Self { caller: Sidecar::Weft, called: STATE_OF_THE_WORLD })
    }

    /// Envoys only, in both dialects.
    pub(crate) fn envoys() -> Result<Self, Failure> {
        with_envoy(Self { caller: STATE_OF_THE_WORLD, called: DELTA })
    }
}

fn with_envoy(sidecars: Sidecars) -> Result<Sidecars, Failure> {
    match Programs::find_envoy() {
        Some(_) => Ok(sidecars),
        None => Err(testing::skip("there is no Envoy: WEFT_ENVOY=\"$(scripts/envoy.sh)\" names one")),
    }
}
