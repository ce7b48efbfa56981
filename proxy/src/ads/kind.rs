//! The kinds of resource that travel over the stream.

use weft_xds::type_url;

/// A kind of xDS resource. The order is that of need: each kind needs only kinds that come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// SDS.
    Secret,
    /// EDS.
    Endpoints,
    /// CDS.
    Cluster,
    /// RDS.
    Route,
    /// LDS.
    Listener,
}

impl Kind {
    /// Every kind, what is needed before what needs it.
    pub const ALL: [Self; 5] = [Self::Secret, Self::Endpoints, Self::Cluster, Self::Route, Self::Listener];

    /// The kind's type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Secret => type_url::SECRET,
            Self::Endpoints => type_url::ENDPOINT,
            Self::Cluster => type_url::CLUSTER,
            Self::Route => type_url::ROUTE,
            Self::Listener => type_url::LISTENER,
        }
    }

    /// The kind of a type URL.
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// As messages and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Endpoints => "endpoints",
            Self::Cluster => "cluster",
            Self::Route => "route",
            Self::Listener => "listener",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A resource's kind and name.
pub type Key = (Kind, std::sync::Arc<str>);
