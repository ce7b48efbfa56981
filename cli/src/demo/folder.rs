//! The shop's samples in the folder that the control plane watches, and edits of them.

use std::time::Instant;

use anyhow::bail;
use weft_local_mesh::Folder;

/// The sample configuration, as in `manifests/samples/shop`.
pub(crate) const SAMPLES: [(&str, &str); 4] = [
    ("services.yaml", include_str!("../../../manifests/samples/shop/services.yaml")),
    ("routes.yaml", include_str!("../../../manifests/samples/shop/routes.yaml")),
    ("traffic.yaml", include_str!("../../../manifests/samples/shop/traffic.yaml")),
    ("security.yaml", include_str!("../../../manifests/samples/shop/security.yaml")),
];

/// An edit: text that must be there, and what takes its place.
pub(crate) type Replacement = (&'static str, &'static str);

/// Replaces parts of a sample file in the folder; what earlier edits did to it is undone. Returns when it began.
pub(crate) fn edit(folder: &Folder, file: &str, replacements: &[Replacement]) -> anyhow::Result<Instant> {
    let text = edited(file, replacements)?;
    // Before the file is there: this process may have to wait for its turn after that, and others do not wait for it.
    let saved = Instant::now();
    folder.write(file, &text)?;
    Ok(saved)
}

/// Takes back every edit of a sample file.
pub(crate) fn restore(folder: &Folder, file: &str) -> anyhow::Result<Instant> {
    edit(folder, file, &[])
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
