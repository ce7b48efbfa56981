//! The folder of YAML that the control plane watches: the shop's samples, a Workload file per pod, and edits.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};

/// The sample configuration, as in `manifests/samples/shop`.
pub(crate) const SAMPLES: [(&str, &str); 4] = [
    ("services.yaml", include_str!("../../../manifests/samples/shop/services.yaml")),
    ("routes.yaml", include_str!("../../../manifests/samples/shop/routes.yaml")),
    ("traffic.yaml", include_str!("../../../manifests/samples/shop/traffic.yaml")),
    ("security.yaml", include_str!("../../../manifests/samples/shop/security.yaml")),
];

/// An edit: text that must be there, and what takes its place.
pub(crate) type Replacement = (&'static str, &'static str);

/// A folder that exists as long as its sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder and copies the samples into it.
    pub(crate) fn create(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Self(path);
        for (file, text) in SAMPLES {
            folder.write(file, text)?;
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces a file at once, as editors do: no reader sees half of it. Returns when it was done.
    pub(crate) fn write(&self, file: &str, text: &str) -> anyhow::Result<Instant> {
        let path = self.0.join(file);
        // A name the control plane does not read.
        let draft = self.0.join(format!(".{file}.draft"));
        std::fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
        std::fs::rename(&draft, &path).with_context(|| format!("cannot replace {}", path.display()))?;
        Ok(Instant::now())
    }

    pub(crate) fn remove(&self, file: &str) -> anyhow::Result<()> {
        let path = self.0.join(file);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Replaces parts of a sample file; what earlier edits did to it is undone.
    pub(crate) fn edit(&self, file: &str, replacements: &[Replacement]) -> anyhow::Result<Instant> {
        self.write(file, &edited(file, replacements)?)
    }

    /// Takes back every edit of a sample file.
    pub(crate) fn restore(&self, file: &str) -> anyhow::Result<Instant> {
        self.edit(file, &[])
    }
}

/// A sample file with parts replaced.
pub(crate) fn edited(file: &str, replacements: &[Replacement]) -> anyhow::Result<String> {
    let Some((_, text)) = SAMPLES.iter().find(|(name, _)| *name == file) else {
        bail!("{file} is none of the shop's files");
    };
    let mut text = (*text).to_owned();
    for (from, to) in replacements {
        if !text.contains(from) {
            bail!("{file} does not contain {from:?}");
        }
        text = text.replacen(from, to, 1);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_valid() {
        for (file, text) in SAMPLES {
            let manifest = weft_api::manifest::parse(file, text);
            assert!(manifest.problems.is_empty(), "{file}: {:#?}", manifest.problems);
            assert!(!manifest.objects.is_empty(), "{file} is empty");
        }
    }
}
