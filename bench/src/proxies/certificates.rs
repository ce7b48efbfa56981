//! What the two sides of a pair prove to each other.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// Writes `root.pem`, and of each side `SIDE.pem`, `SIDE.key` and `SIDE.both` (HAProxy's form) into the folder.
pub(super) fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "the benchmark's authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    fs::write(folder.join("root.pem"), authority.pem())?;
    for side in ["client", "server"] {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, side);
        parameters.subject_alt_names = vec![SanType::URI(format!("spiffe://bench/{side}").try_into()?)];
        if side == "server" {
            parameters.subject_alt_names.push(SanType::DnsName("shop.test".try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &authority)?.pem();
        let key = key.serialize_pem();
        fs::write(folder.join(format!("{side}.pem")), &certificate)?;
        fs::write(folder.join(format!("{side}.both")), certificate + &key)?;
        fs::write(folder.join(format!("{side}.key")), key)?;
    }
    Ok(())
}
