//! The suites.

mod admission;
mod cni;
mod identity;
mod rollouts;
mod routing;
mod scale;
mod smoke;
mod workloads;
mod zones;

use clap::ValueEnum;

use crate::mesh::Mesh;
use crate::report::Test;

/// A list of functions `async fn(&Mesh) -> anyhow::Result<()>` as tests, named as they are.
macro_rules! tests {
    ($($(#[$essential:ident])? $name:ident),* $(,)?) => {
        vec![$($crate::report::Test {
            name: stringify!($name),
            essential: false $(|| stringify!($essential) == "essential")?,
            work: |mesh| Box::pin($name(mesh)),
        }),*]
    };
}
use tests;

/// Which tests.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Suite {
    /// Install, inject, one call, one rolling restart
    Smoke,
    /// Everything but the scale
    All,
    /// What the control plane needs in a cluster of 1,000 Services and 5,000 pods
    Scale,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smoke => "kubernetes-smoke",
            Self::All => "kubernetes",
            Self::Scale => "kubernetes-scale",
        }
    }

    /// Its tests; `node` is whether there is a node whose processes may be stopped.
    pub(crate) fn tests(self, node: bool) -> Vec<Test<Mesh>> {
        let of_the_node =
            if node { [zones::tests_of_the_node(), rollouts::tests_of_the_node()].concat() } else { Vec::new() };
        let between = match self {
            Self::Smoke => Vec::new(),
            Self::Scale => scale::tests(),
            Self::All => {
                let (before, after) = rollouts::tests();
                [
                    identity::tests(),
                    admission::tests(),
                    routing::tests(),
                    workloads::tests(),
                    before,
                    of_the_node,
                    after,
                ]
                .concat()
            }
        };
        let other_mode = match self {
            Self::Smoke | Self::Scale => Vec::new(),
            Self::All => cni::tests(),
        };
        [smoke::begin(), between, smoke::end(), other_mode].concat()
    }
}

#[cfg(test)]
mod tests_of_the_suites {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_tests_of_a_suite_have_one_name() {
        for suite in Suite::value_variants() {
            let mut names = BTreeSet::new();
            for test in suite.tests(true) {
                assert!(names.insert(test.name), "{}: {}", suite.name(), test.name);
            }
        }
    }
}
