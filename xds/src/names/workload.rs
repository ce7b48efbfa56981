//! Who a workload is: the two names its certificate carries.

use std::fmt;
use std::str::FromStr;

/// What [`PodName`]s end with.
const POD_SUFFIX: &str = ".pod.weft.mesh";

/// Why a text is no SPIFFE id or pod name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of the form Weft issues.
    #[error("`{found}` is not of the form `{form}`")]
    Form {
        /// The text.
        found: String,
        /// What it should look like.
        form: &'static str,
    },
    /// A part holds a character that would make the name ambiguous, or is empty or too long.
    #[error("{part} `{found}` must be 1 to {max} characters of a-z, 0-9, `-`{dot}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Its text.
        found: String,
        /// The longest allowed.
        max: usize,
        /// Names the dot where it is allowed.
        dot: &'static str,
    },
}

/// A workload's identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// The only URI SAN of a workload's certificate (SPIFFE X.509-SVID §2).
///
/// ```
/// use weft_xds::names::SpiffeId;
/// let id: SpiffeId = "spiffe://weft.local/ns/shop/sa/reviews".parse()?;
/// assert_eq!(id.namespace, "shop");
/// assert_eq!(id.to_string(), "spiffe://weft.local/ns/shop/sa/reviews");
/// # Ok::<(), weft_xds::names::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The trust domain, lower case.
    pub trust_domain: String,
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
}

impl SpiffeId {
    /// Builds an id.
    ///
    /// # Errors
    /// If a part holds characters that a SPIFFE id may not hold there.
    pub fn new(
        trust_domain: impl Into<String>,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) -> Result<Self, NameError> {
        let id = Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        };
        part("trust domain", &id.trust_domain, 255, true)?;
        part("namespace", &id.namespace, 63, false)?;
        part("service account", &id.service_account, 253, true)?;
        Ok(id)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Option<Vec<_>> = text.strip_prefix("spiffe://").map(|rest| rest.split('/').collect());
        match parts.as_deref() {
            Some([trust_domain, "ns", namespace, "sa", account]) => Self::new(*trust_domain, *namespace, *account),
            _ => Err(NameError::Form {
                found: text.to_owned(),
                form: "spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
            }),
        }
    }
}

/// A pod's name in its certificate: the DNS SAN `<pod>.<workload>.<namespace>.pod.weft.mesh`.
///
/// The pod's own name may hold dots; the workload's may not, so the name reads in one way only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    /// The pod.
    pub pod: String,
    /// Its owner.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
}

impl PodName {
    /// Builds a name.
    ///
    /// # Errors
    /// If a part is no DNS label (the pod: no DNS name).
    pub fn new(
        pod: impl Into<String>,
        workload: impl Into<String>,
        namespace: impl Into<String>,
    ) -> Result<Self, NameError> {
        let name = Self { pod: pod.into(), workload: workload.into(), namespace: namespace.into() };
        part("pod", &name.pod, 253, true)?;
        part("workload", &name.workload, 63, false)?;
        part("namespace", &name.namespace, 63, false)?;
        Ok(name)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{POD_SUFFIX}", self.pod, self.workload, self.namespace)
    }
}

impl FromStr for PodName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let form = || NameError::Form { found: text.to_owned(), form: "<pod>.<workload>.<namespace>.pod.weft.mesh" };
        let rest = text.strip_suffix(POD_SUFFIX).ok_or_else(form)?;
        let (rest, namespace) = rest.rsplit_once('.').ok_or_else(form)?;
        let (pod, workload) = rest.rsplit_once('.').ok_or_else(form)?;
        Self::new(pod, workload, namespace)
    }
}

/// Checks a part of a name: lower-case DNS characters only, so that no part can imitate another.
fn part(part: &'static str, text: &str, max: usize, dots: bool) -> Result<(), NameError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (dots && byte == b'.');
    let odd_dots = text.starts_with('.') || text.ends_with('.') || text.contains("..");
    if !text.is_empty() && text.len() <= max && text.bytes().all(legal) && !odd_dots {
        return Ok(());
    }
    Err(NameError::Part { part, found: text.to_owned(), max, dot: if dots { " and inner dots" } else { "" } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_pod_names_parse_back() {
        let id = SpiffeId::new("weft.local", "shop", "reviews").unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        let pod = PodName::new("reviews-v1-0", "reviews-v1", "shop").unwrap();
        assert_eq!(pod.to_string(), "reviews-v1-0.reviews-v1.shop.pod.weft.mesh");
        assert_eq!(pod.to_string().parse(), Ok(pod));
        let dotted = PodName::new("a.b", "w", "n").unwrap();
        assert_eq!(dotted.to_string().parse(), Ok(dotted));
    }

    #[test]
    fn other_spiffe_ids_are_refused() {
        for text in [
            "spiffe://weft.local/ns/shop",
            "spiffe://weft.local/ns/shop/sa/a/b",
            "spiffe://weft.local/ns//sa/a",
            "spiffe:///ns/shop/sa/a",
            "https://weft.local/ns/shop/sa/a",
            "spiffe://WEFT.local/ns/shop/sa/a",
            "spiffe://weft.local/ns/shop/sa/a%2f",
            "spiffe://weft.local/ns/shop/sa/..",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_dot_in_the_workload_is_refused_because_it_would_read_two_ways() {
        assert!(PodName::new("a", "b.c", "n").is_err());
    }
}
