//! Where the programs of the mesh are.

use std::path::{Path, PathBuf};

use crate::Error;

/// Environment variable that names the programs' folder; by default it is this program's own, or for a test the one that holds its `deps`.
pub const FOLDER: &str = "WEFT_PROGRAMS";

/// Environment variable that names an Envoy, for pods with one in the place of our own proxy.
pub const ENVOY: &str = "WEFT_ENVOY";

/// The programs of a mesh.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `weft-control-plane`.
    pub control_plane: PathBuf,
    /// `weft-proxy`.
    pub proxy: PathBuf,
    /// `weft-shop`: servers of every protocol, and clients.
    pub shop: PathBuf,
    /// `weft`, for pods with another sidecar than our own.
    pub weft: PathBuf,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// [`Error::MissingProgram`] for the first that has not been built.
    pub fn find() -> Result<Self, Error> {
        let folder = match std::env::var_os(FOLDER) {
            Some(folder) => PathBuf::from(folder),
            None => beside_this_program()?,
        };
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { Err(Error::MissingProgram(path)) }
        };
        Ok(Self {
            control_plane: find("weft-control-plane")?,
            proxy: find("weft-proxy")?,
            shop: find("weft-shop")?,
            weft: folder.join("weft"),
        })
    }

    /// The Envoy of [`ENVOY`], if there is one.
    #[must_use]
    pub fn find_envoy() -> Option<PathBuf> {
        std::env::var_os(ENVOY).map(PathBuf::from).filter(|path| path.is_file())
    }
}

/// `target/<triple>/debug`, also given `target/<triple>/debug/deps/mesh-0123456789abcdef`.
fn beside_this_program() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("tell where this program is"))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}
