//! The labels of the proxy's metrics.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};

/// A label's value that is shared by many series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Arc<str>);

impl Text {
    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Text {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self(text.clone())
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(&self.0)
    }
}

/// A value from a closed set.
macro_rules! label_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it is written in a label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                encoder.write_str(self.as_str())
            }
        }
    };
}

label_enum! {
    /// Which way a call goes, seen from the local application.
    Direction {
        /// The local application calls.
        Outbound = "outbound",
        /// The local application is called.
        Inbound = "inbound",
    }
}

label_enum! {
    /// How the wire is protected.
    Tls {
        /// Not at all.
        None = "none",
        /// TLS of which only the server proved itself.
        Simple = "simple",
        /// TLS with both sides authenticated.
        Mutual = "mutual",
    }
}

label_enum! {
    /// A response by its status, or no response.
    ResponseClass {
        /// 100 to 199.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 to 599.
        ServerError = "5xx",
        /// The caller got no whole response.
        Error = "error",
    }
}

impl ResponseClass {
    /// The class of a status code; anything outside 100 to 599 is an error.
    pub fn of_status(status: u16) -> Self {
        match status {
            100..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500..600 => Self::ServerError,
            _ => Self::Error,
        }
    }
}

label_enum! {
    /// What a connection carries.
    Protocol {
        /// HTTP/1.x.
        Http1 = "http/1.1",
        /// HTTP/2.
        Http2 = "h2",
        /// Bytes that are not looked at.
        Tcp = "tcp",
    }
}

label_enum! {
    /// How a retry ended.
    RetryOutcome {
        /// The retried call succeeded.
        Success = "success",
        /// It failed as well.
        Failure = "failure",
        /// It was not made, because the budget was used up.
        OverBudget = "over_budget",
        /// It was not made, because the body outgrew the replay buffer.
        BodyTooLarge = "body_too_large",
    }
}

label_enum! {
    /// Direction of bytes on the side of whoever connected to us.
    Way {
        /// To the one who connected.
        Sent = "sent",
        /// From the one who connected.
        Received = "received",
    }
}

label_enum! {
    /// How the question for a destination was answered.
    LookupOutcome {
        /// The control plane sent a listener.
        Found = "found",
        /// The control plane says there is none.
        Absent = "absent",
        /// No answer within the time limit.
        NoAnswer = "no_answer",
    }
}

/// Why a response is not the application's own: Envoy's short names, and `NC` for a destination without configuration.
///
/// Envoy's list: `docs/root/configuration/observability/access_log/usage.rst`, `%RESPONSE_FLAGS%`. `NC` is Envoy's too ("cluster not
/// found"); Weft uses it also where the configuration did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flag(&'static str);

impl Flag {
    /// A flag by its short name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The short name.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What identifies a request's series; resolve it once per route and peer, and hold the [`super::RequestMetrics`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Which way.
    pub direction: Direction,
    /// Workload that calls, or empty when unknown.
    pub source_workload: Text,
    /// Its namespace.
    pub source_namespace: Text,
    /// `namespace/name` of the Service that was called, or empty.
    pub destination_service: Text,
    /// Workload that answers, or empty when unknown.
    pub destination_workload: Text,
    /// Its namespace.
    pub destination_namespace: Text,
    /// The route's name, or empty.
    pub route: Text,
    /// SPIFFE ID of the other side, or empty.
    pub peer: Text,
    /// How the wire between the two proxies is protected.
    pub tls: Tls,
}

impl RequestKey {
    /// The key that stands for all keys beyond the limit.
    pub(super) fn overflow(direction: Direction) -> Self {
        let other = Text::from("overflow");
        Self {
            direction,
            source_workload: other.clone(),
            source_namespace: other.clone(),
            destination_service: other.clone(),
            destination_workload: other.clone(),
            destination_namespace: other.clone(),
            route: other.clone(),
            peer: other,
            tls: Tls::None,
        }
    }
}

impl EncodeLabelSet for RequestKey {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        ("direction", self.direction.as_str()).encode(encoder.encode_label())?;
        for (name, value) in [
            ("source_workload", &self.source_workload),
            ("source_namespace", &self.source_namespace),
            ("destination_service", &self.destination_service),
            ("destination_workload", &self.destination_workload),
            ("destination_namespace", &self.destination_namespace),
            ("route", &self.route),
            ("peer", &self.peer),
        ] {
            (name, value.as_str()).encode(encoder.encode_label())?;
        }
        ("tls", self.tls.as_str()).encode(encoder.encode_label())
    }
}

/// Labels of one counter of `weft_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResponseLabels {
    pub(super) key: Arc<RequestKey>,
    pub(super) class: ResponseClass,
    pub(super) flag: &'static str,
}

impl EncodeLabelSet for ResponseLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        self.key.encode(encoder)?;
        ("response_class", self.class.as_str()).encode(encoder.encode_label())?;
        ("flag", self.flag).encode(encoder.encode_label())
    }
}
