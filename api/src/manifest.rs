//! A file of Kubernetes YAML: its objects, and everything that is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use crate::check::{self, Check};
use crate::gateway::{GrpcRoute, HttpRoute, ReferenceGrant};
use crate::mesh::{AccessPolicy, FaultPolicy, MeshTls, TrafficPolicy, Workload};
use crate::path::FieldPath;
use crate::problem::{Problem, Severity};
use crate::suggest;
use crate::yaml::{self, Finding, Node, Strictness};

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// One object of any kind that Weft reads.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Object {
    Service(Service),
    ServiceAccount(ServiceAccount),
    EndpointSlice(EndpointSlice),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    ReferenceGrant(ReferenceGrant),
    Workload(Workload),
    TrafficPolicy(TrafficPolicy),
    MeshTls(MeshTls),
    AccessPolicy(AccessPolicy),
    FaultPolicy(FaultPolicy),
}

/// An object and where it is written.
#[derive(Clone, Debug)]
pub struct Located {
    /// The object.
    pub object: Object,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an object is written, for problems that are found later, between several objects.
#[derive(Clone, Debug)]
pub struct Origin {
    file: Arc<str>,
    /// `Kind namespace/name`.
    name: Arc<str>,
    node: Option<Arc<Node>>,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// The objects without errors, in the file's order.
    pub objects: Vec<Located>,
    /// Errors and warnings by line.
    pub problems: Vec<Problem>,
}

impl Manifest {
    /// Whether the file must not be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }
}

impl Object {
    /// The kind, as written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::ServiceAccount(_) => "ServiceAccount",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::HttpRoute(_) => "HTTPRoute",
            Self::GrpcRoute(_) => "GRPCRoute",
            Self::ReferenceGrant(_) => "ReferenceGrant",
            Self::Workload(_) => "Workload",
            Self::TrafficPolicy(_) => "TrafficPolicy",
            Self::MeshTls(_) => "MeshTLS",
            Self::AccessPolicy(_) => "AccessPolicy",
            Self::FaultPolicy(_) => "FaultPolicy",
        }
    }

    /// The object's metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::HttpRoute(o) => &o.metadata,
            Self::GrpcRoute(o) => &o.metadata,
            Self::ReferenceGrant(o) => &o.metadata,
            Self::Workload(o) => &o.metadata,
            Self::TrafficPolicy(o) => &o.metadata,
            Self::MeshTls(o) => &o.metadata,
            Self::AccessPolicy(o) => &o.metadata,
            Self::FaultPolicy(o) => &o.metadata,
        }
    }

    /// The object's namespace; [`DEFAULT_NAMESPACE`] where none is written.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
}

impl Origin {
    /// An object without a file, such as one from an API server.
    #[must_use]
    pub fn elsewhere(source: &str, object: &Object) -> Self {
        Self { file: source.into(), name: title(object.kind(), object.namespace(), object.name()), node: None }
    }

    /// An object of a kind that is none of [`Object`]'s, such as a pod that stands as a Workload.
    #[must_use]
    pub fn named(source: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { file: source.into(), name: title(kind, namespace, name), node: None }
    }

    /// The file, as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `Kind namespace/name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line of a field, or of its nearest parent that is written; 0 without a file.
    #[must_use]
    pub fn line(&self, path: &FieldPath) -> u32 {
        self.node.as_ref().map_or(0, |node| node.line_of(path))
    }

    /// A problem with a field of this object.
    #[must_use]
    pub fn problem(
        &self,
        severity: Severity,
        path: &FieldPath,
        value: impl Into<String>,
        why: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        Problem {
            file: self.file.to_string(),
            line: self.line(path),
            object: self.name.to_string(),
            field: path.to_string(),
            value: value.into(),
            why: why.into(),
            hint: hint.into(),
            severity,
        }
    }
}

/// Reads a file of one or more YAML documents, and checks each object by itself. `file` is only a name, used in problems.
///
/// Objects with errors are left out of [`Manifest::objects`], so that the others can still be checked together.
#[must_use]
pub fn parse(file: &str, text: &str) -> Manifest {
    let file: Arc<str> = file.into();
    let mut manifest = Manifest::default();
    let (documents, syntax) = yaml::documents(text);
    for document in documents {
        read(&file, document, &mut manifest);
    }
    if let Some(error) = syntax {
        manifest.problems.push(Problem {
            file: file.to_string(),
            line: error.line,
            object: String::new(),
            field: String::new(),
            value: String::new(),
            why: error.why,
            hint: error.hint.to_owned(),
            severity: Severity::Error,
        });
    }
    duplicates(&mut manifest);
    manifest.problems.sort_by(|a, b| (a.line, a).cmp(&(b.line, b)));
    manifest
}

/// Objects that are written twice, in one file or in several. Returns a problem for each after the first.
#[must_use]
pub fn find_duplicates<'a>(objects: impl IntoIterator<Item = &'a Located>) -> Vec<Problem> {
    let mut seen: HashMap<(&str, &str, &str), &Origin> = HashMap::new();
    let mut problems = Vec::new();
    for Located { object, origin } in objects {
        let key = (object.kind(), object.namespace(), object.name());
        if let Some(first) = seen.get(&key) {
            let name = FieldPath::root().key("metadata").key("name");
            problems.push(origin.problem(
                Severity::Error,
                &name,
                object.name(),
                format!("is written twice, first in {}:{}", first.file(), first.line(&name)),
                "keep one of the two",
            ));
        } else {
            seen.insert(key, origin);
        }
    }
    problems
}

fn duplicates(manifest: &mut Manifest) {
    let found = find_duplicates(&manifest.objects);
    manifest.problems.extend(found);
}

fn read(file: &Arc<str>, document: Node, manifest: &mut Manifest) {
    let text = |key| document.get(key).and_then(Node::text);
    let meta = |key| document.get("metadata").and_then(|m| m.get(key)).and_then(Node::text);
    let kind = text("kind").unwrap_or_default().to_owned();
    let version = text("apiVersion").unwrap_or_default().to_owned();
    let name = title(&kind, meta("namespace").unwrap_or(DEFAULT_NAMESPACE), meta("name").unwrap_or_default());
    let mut reader = Reader { origin: Origin { file: file.clone(), name, node: Some(Arc::new(document)) }, manifest };
    use Strictness::{Refuse, Warn};
    match (version.as_str(), kind.as_str()) {
        ("v1", "Service") => reader.object(Warn, Object::Service, check::service),
        ("v1", "ServiceAccount") => reader.object(Warn, Object::ServiceAccount, check::service_account),
        ("discovery.k8s.io/v1", "EndpointSlice") => reader.object(Warn, Object::EndpointSlice, check::endpoint_slice),
        ("gateway.networking.k8s.io/v1", "HTTPRoute") => reader.object(Refuse, Object::HttpRoute, check::http_route),
        ("gateway.networking.k8s.io/v1", "GRPCRoute") => reader.object(Refuse, Object::GrpcRoute, check::grpc_route),
        ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "ReferenceGrant") => {
            reader.object(Refuse, Object::ReferenceGrant, check::reference_grant);
        }
        ("weft.mesh/v1alpha1", "Workload") => reader.object(Refuse, Object::Workload, check::workload),
        ("weft.mesh/v1alpha1", "TrafficPolicy") => reader.object(Refuse, Object::TrafficPolicy, check::traffic_policy),
        ("weft.mesh/v1alpha1", "MeshTLS") => reader.object(Refuse, Object::MeshTls, check::mesh_tls),
        ("weft.mesh/v1alpha1", "AccessPolicy") => reader.object(Refuse, Object::AccessPolicy, check::access_policy),
        ("weft.mesh/v1alpha1", "FaultPolicy") => reader.object(Refuse, Object::FaultPolicy, check::fault_policy),
        _ => reader.unknown(&version, &kind),
    }
}

/// Every kind that Weft reads, with its `apiVersion`.
pub const KINDS: [(&str, &str); 12] = [
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"),
    ("gateway.networking.k8s.io/v1", "ReferenceGrant"),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
    ("weft.mesh/v1alpha1", "Workload"),
    ("weft.mesh/v1alpha1", "TrafficPolicy"),
    ("weft.mesh/v1alpha1", "MeshTLS"),
    ("weft.mesh/v1alpha1", "AccessPolicy"),
    ("weft.mesh/v1alpha1", "FaultPolicy"),
];

struct Reader<'m> {
    origin: Origin,
    manifest: &'m mut Manifest,
}

impl Reader<'_> {
    fn object<T: DeserializeOwned>(
        &mut self,
        strictness: Strictness,
        wrap: fn(T) -> Object,
        check: fn(&mut Check, &T),
    ) {
        let Some(node) = self.origin.node.clone() else {
            return;
        };
        let decoded = yaml::decode::<T>(&node, strictness);
        let mut failed = decoded.findings.iter().any(|f| f.severity == Severity::Error);
        self.report(decoded.findings);
        let Some(object) = decoded.object else { return };
        let mut checks = Check::default();
        check(&mut checks, &object);
        let mut findings = checks.into_findings();
        // A field that could not be read, and lists that lost an element, are not what the author wrote.
        findings.retain(|f| {
            // A missing field is no news where its misspelling was just told.
            (!failed || f.severity == Severity::Error)
                && !decoded.skipped.iter().any(|s| {
                    let lost = match s.steps().last() {
                        Some(crate::path::Step::Index(_)) => s.parent().unwrap_or_default(),
                        _ => s.clone(),
                    };
                    f.path.is_within(&lost) || s.parent().is_some_and(|p| f.path == p)
                })
        });
        failed |= findings.iter().any(|f| f.severity == Severity::Error);
        self.report(findings);
        if !failed {
            self.manifest.objects.push(Located { object: wrap(object), origin: self.origin.clone() });
        }
    }

    fn report(&mut self, findings: Vec<Finding>) {
        for f in findings {
            self.manifest.problems.push(self.origin.problem(f.severity, &f.path, f.value, f.why, f.hint));
        }
    }

    /// A kind that Weft does not read: refused where it is probably a typing error, else left to others.
    fn unknown(&mut self, version: &str, kind: &str) {
        let root = FieldPath::root();
        let origin = self.origin.clone();
        let mut error = |path: FieldPath, value: &str, why: String, hint: String| {
            self.manifest.problems.push(origin.problem(Severity::Error, &path, value, why, hint));
        };
        if version.is_empty() {
            return error(
                root.key("apiVersion"),
                "",
                "is missing".to_owned(),
                "every object starts with apiVersion and kind".to_owned(),
            );
        }
        if kind.is_empty() {
            return error(
                root.key("kind"),
                "",
                "is missing".to_owned(),
                "every object starts with apiVersion and kind".to_owned(),
            );
        }
        let names: Vec<&str> = KINDS.iter().map(|(_, kind)| *kind).collect();
        if let Some((right, _)) = KINDS.iter().find(|(_, k)| *k == kind) {
            return error(
                root.key("apiVersion"),
                version,
                format!("is not a version of {kind} that Weft reads"),
                format!("write {right}"),
            );
        }
        let hint = suggest::hint(kind, &names);
        error(root.key("kind"), kind, "is not a kind that Weft reads".to_owned(), hint);
    }
}

fn title(kind: &str, namespace: &str, name: &str) -> Arc<str> {
    if kind.is_empty() { "".into() } else { format!("{kind} {namespace}/{name}").into() }
}
