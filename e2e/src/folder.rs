//! The folder of YAML that the control plane watches, and texts to put into it.

use std::path::{Path, PathBuf};

use crate::{Error, NAMESPACE};

/// A folder that exists as long as its sandbox.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: PathBuf) -> Result<Self, Error> {
        std::fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces a file at once, as editors do: no reader sees half of it. False if it had that text already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<bool, Error> {
        let path = self.0.join(file);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        // A name the control plane does not read.
        let draft = self.0.join(format!(".{file}.draft"));
        std::fs::write(&draft, text).map_err(Error::io(format!("write {}", draft.display())))?;
        std::fs::rename(&draft, &path).map_err(Error::io(format!("replace {}", path.display())))?;
        Ok(true)
    }

    /// Removes a file. False if there was none.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, file: &str) -> Result<bool, Error> {
        let path = self.0.join(file);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("remove {}", path.display()))(error)),
        }
    }
}

/// An object of the test's namespace: its kind with version (`weft.mesh/v1alpha1 MeshTLS`), its name, and its spec as one line of
/// YAML or as an indented block.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    let (version, kind) = kind.split_once(' ').unwrap_or(("v1", kind));
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\nspec: {spec}\n---\n"
    )
}

/// A Service for the workloads that these labels (`app: reviews`) choose.
pub fn service(name: &str, labels: &str, port: u16, target_port: u16, protocol: &str) -> String {
    let port = format!("{{ name: main, port: {port}, targetPort: {target_port}, appProtocol: {protocol} }}");
    object("v1 Service", name, &format!("{{ selector: {{ {labels} }}, ports: [{port}] }}"))
}

/// A policy of ours that governs a Service.
pub fn policy(kind: &str, service: &str, spec: &str) -> String {
    let spec = format!("\n  targetRefs: [{{ kind: Service, name: {service} }}]\n  {}", spec.replace('\n', "\n  "));
    object(&format!("weft.mesh/v1alpha1 {kind}"), service, &spec)
}

/// The whole namespace's mode of mutual TLS: `Strict` or `Permissive`.
pub fn mesh_tls(mode: &str) -> String {
    object("weft.mesh/v1alpha1 MeshTLS", "namespace", &format!("{{ mode: {mode} }}"))
}
